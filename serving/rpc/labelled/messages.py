"""Messages of labelled pictures, their predictions, and changes of labels."""

from typing import Final

from regraft.client.message_values import to_timestamp
from regraft.stores.labelling.listing import Listed, Side
from regraft.stores.labelling.predictions import UNKNOWN_LABEL, Prediction
from regraft.stores.labelling.present_names import LabelChange
from regraft.stores.labels import Example
from regraft.v1 import examples_pb2 as pb

SPLITS: Final = {
    Side.TRAINING: pb.SPLIT_TRAINING,
    Side.HOLDOUT: pb.SPLIT_HOLDOUT,
    Side.UNDECIDED: pb.SPLIT_UNDECIDED,
}


def example_message(example: Example) -> pb.Example:
    """Return the message of an example, without its bytes."""
    fields = {**vars(example), "added_at": to_timestamp(example.added_at), "etag": example.etag}
    return pb.Example(**fields)


def listed_message(listed: Listed) -> pb.Example:
    """Return the message of an example in a list."""
    message = example_message(listed.example)
    message.split = SPLITS[listed.side]
    if listed.prediction:
        message.prediction.CopyFrom(_prediction_message(listed.prediction))
    return message


def _prediction_message(prediction: Prediction) -> pb.ExamplePrediction:
    is_known = prediction.doubt != UNKNOWN_LABEL
    return pb.ExamplePrediction(
        label=prediction.label,
        probability=prediction.probability,
        label_probability=prediction.label_probability,
        novelty=prediction.novelty,
        suspicion=prediction.doubt if is_known else None,
        suspected=prediction.is_suspected,
        unseen=prediction.is_unseen,
    )


def change_message(change: LabelChange) -> pb.LabelChange:
    """Return the message of a change of a label."""
    return pb.LabelChange(**{**vars(change), "new_label": change.new_label or "", "at": to_timestamp(change.at)})
