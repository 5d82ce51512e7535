"""The devices of a training, chosen before the backend starts."""

import os
from typing import Any

from utils.errors import VoiceprintError
from utils.model.backend import start_backend


def select_devices(gpu: str, precision: str) -> Any:
    """Chooses the devices before the backend starts, and the precision of the computation.

    Args:
        gpu: Empty for all GPUs, "0,1" for some, "cpu" for none, "cpu:2" for two logical CPU
            devices, which behave like two GPUs.
        precision: A Keras dtype policy.

    Returns:
        A `tf.distribute.Strategy` on TensorFlow with several devices, else `None`.

    Raises:
        VoiceprintError: If a named GPU does not exist.
    """
    num_logical = int(gpu[4:]) if gpu.startswith("cpu:") else 1
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1" if gpu.startswith("cpu") else gpu
    num_wanted = 0 if gpu.startswith("cpu") or not gpu else len(gpu.split(","))
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend == "jax" and num_logical > 1:
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "")
            + f" --xla_force_host_platform_device_count={num_logical}"
        )
    strategy = None
    if backend == "tensorflow":
        start_backend()
        import tensorflow as tf

        if num_logical > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            parts = [tf.config.LogicalDeviceConfiguration()] * num_logical
            tf.config.set_logical_device_configuration(cpu, parts)
            devices = [device.name for device in tf.config.list_logical_devices("CPU")]
        else:
            for device in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(device, True)
            devices = [device.name for device in tf.config.list_logical_devices("GPU")]
        _check_gpus(num_wanted, len(devices), gpu)
        if len(devices) > 1:
            strategy = tf.distribute.MirroredStrategy(devices)
    import keras

    if backend == "jax":
        devices = keras.distribution.list_devices()
        _check_gpus(num_wanted, sum("cpu" not in name for name in devices), gpu)
        if len(devices) > 1:
            keras.distribution.set_distribution(keras.distribution.DataParallel())
    keras.config.set_dtype_policy(precision)
    return strategy


def _check_gpus(num_wanted: int, num_found: int, gpu: str) -> None:
    """Raises VoiceprintError if fewer GPUs are there than were named."""
    if num_wanted > num_found:
        raise VoiceprintError(
            f"--gpu {gpu} names {num_wanted} GPUs, {num_found} can be used; "
            "leave the option out to take what there is, or install the GPU driver"
        )
