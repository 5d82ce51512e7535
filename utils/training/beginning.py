"""What a training begins with: network, learner and optimiser, and weights of another model."""

from typing import Any

import numpy as np

from utils.crops.batches import BatchMaker
from utils.errors import ModelError
from utils.model.archive import load_network
from utils.training.settings import TrainingSettings


def build_learner(
    settings: TrainingSettings, num_speakers: int, steps: int, maker: BatchMaker
) -> tuple[Any, Any, dict[str, Any]]:
    """Builds network, learner and optimiser.

    Args:
        settings: Those of the training.
        num_speakers: Speakers of the training list.
        steps: Of an epoch.
        maker: Makes the batches.

    Returns:
        The learner; the network with 32-bit floats, which is the learner's own unless that
        calculates with 16 bits; and the arguments that build the network.
    """
    import keras

    from utils.networks.catalogue import NETWORKS
    from utils.training.learner import SpeakerLearner
    from utils.training.optimizer import make_optimizer

    keras.utils.set_random_seed(settings.reader.seed + 1)
    shape: dict[str, Any] = {
        "num_classes": num_speakers * maker.num_speed_classes,
        "embedding_size": settings.embedding_size,
        "cosine_classifier": settings.losses.name != "softmax",
        "num_subcenters": settings.losses.num_subcenters,
    }
    if settings.network == "resnet34":
        shape |= {"widths": settings.widths, "num_blocks": settings.num_blocks}
    build = NETWORKS[settings.network]
    network = build(**shape)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    float_network = build(**shape) if policy.name != "float32" else network
    keras.config.set_dtype_policy(policy)
    learner = SpeakerLearner(
        network, settings.losses, maker.teacher_size, settings.reader.num_views,
        settings.keep_statistics,
    )  # fmt: skip
    total = settings.num_epochs * steps
    warmup = min(settings.warmup_steps, total // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 100 if warmup else settings.learning_rate,
        max(total - warmup, 1), alpha=1e-3, warmup_steps=warmup,
        warmup_target=settings.learning_rate if warmup else None,
    )  # fmt: skip
    optimizer = make_optimizer(schedule, settings.weight_decay, settings.body_rate)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    learner.compile(optimizer=optimizer, jit_compile="auto")
    learner.build({"waveforms": (None, settings.reader.crop_samples), "masks": (None, 1, 4)})
    # Not `optimizer`: with 16-bit floats the learner wraps it to scale the loss.
    learner.optimizer.build(learner.trainable_variables)
    return learner, float_network, shape


def copy_weights(network: Any, path: str, matching_only: bool) -> None:
    """Copies a model file's weights by name; all must match.

    Except, with `matching_only`, those of the classifier.

    Raises:
        ModelError: If the file is no model, or one of its weights does not match.
    """
    values = {weight.path: weight for weight in load_network(path).weights}
    for weight in network.weights:
        value = values.get(weight.path)
        if value is not None and tuple(value.shape) == tuple(weight.shape):
            weight.assign(np.asarray(value))
        elif not (matching_only and weight.path.startswith("classification")):
            found = "is missing" if value is None else f"has shape {tuple(value.shape)}"
            advice = (
                "give --widths, --num_blocks and --embedding_size as that model has them"
                if matching_only
                else "resume with the options and the list that the training began with"
            )
            raise ModelError(
                f"{path}: weight {weight.path} {found}, this training expects "
                f"{tuple(weight.shape)}; {advice}"
            )


def start_classifier(network: Any, maker: BatchMaker, num_vectors: int) -> None:
    """Begins each class at the mean of what the teacher says of its speaker, if there is one.

    A class that begins anywhere would first pull the network towards that place.

    Args:
        network: Its classifier's kernel is set.
        maker: Knows the teacher.
        num_vectors: Of the classifier: one for each speaker, or several.
    """
    kernel = network.get_layer("classification").kernel
    if maker.teacher is None or tuple(kernel.shape) != (maker.teacher_size, num_vectors):
        return
    values = np.array(kernel)
    for label, vector in maker.speaker_vectors().items():
        values[:, label] = vector
    kernel.assign(values)
