"""A GRU for token ids."""

from mmtrain.encoders.text.rnn import TextRNN


class TextGRU(TextRNN):
    """Embeddings and a packed GRU, optionally bidirectional. Texts may have any length."""

    cell = "gru"
