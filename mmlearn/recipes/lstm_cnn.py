"""The recipe of LSTM + CNN: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, Tokens
from mmlearn.models.question_answering.lstm_cnn import LSTMCNN, LSTMCNNConfig
from mmlearn.recipes import Recipe
from mmlearn.recipes.shared.answering import ANSWERING

RECIPE = Recipe(
    LSTMCNN,
    LSTMCNNConfig,
    reads=(Image(), Tokens()),
    learns=ANSWERING,
    architecture="""
    image -> CNN -> picture vector -> product [number by number] -> !answer
    question -> LSTMs -> question vector -> product
    """,
)
