"""Losses: functions of tensors that give (sum, count), so that the mean can be taken once, over the whole step."""
