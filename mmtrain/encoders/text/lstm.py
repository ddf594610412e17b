"""An LSTM for token ids."""

from mmtrain.encoders.text.rnn import TextRNN


class TextLSTM(TextRNN):
    """Embeddings and a packed LSTM, optionally bidirectional. Texts may have any length."""

    cell = "lstm"
