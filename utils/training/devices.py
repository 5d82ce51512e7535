"""The devices of a training, chosen before the backend starts."""

import os
from typing import Any

from utils.errors import VoiceprintError
from utils.model.backend import start_backend
from utils.processors import num_processors
from utils.training.hosts import Hosts, join_hosts


def select_devices(gpu: str, precision: str, hosts: Hosts | None = None) -> Any:
    """Chooses the devices before the backend starts, and the precision of the computation.

    Args:
        gpu: Empty for all GPUs, "0,1" for some, "cpu" for none, "cpu:2" for two logical CPU
            devices, which behave like two GPUs.
        precision: A Keras dtype policy.
        hosts: Those of a training on several.

    Returns:
        A `tf.distribute.Strategy` on TensorFlow with several devices, else `None`.

    Raises:
        VoiceprintError: If a named GPU does not exist, or the hosts don't come together.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "jax" if hosts else "tensorflow")
    if hosts and backend != "jax":
        raise VoiceprintError(
            f"--hosts with KERAS_BACKEND={backend}: several hosts train on JAX; leave the variable "
            "out"
        )
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1" if gpu.startswith("cpu") else gpu
    num_logical_cpus = int(gpu[4:]) if gpu.startswith("cpu:") else 1
    strategy = None
    if backend == "tensorflow":
        strategy = _start_tensorflow(gpu, num_logical_cpus)
    elif backend == "jax":
        _start_jax(gpu, num_logical_cpus, hosts)
    import keras

    keras.config.set_dtype_policy(precision)
    return strategy


def _start_tensorflow(gpu: str, num_logical_cpus: int) -> Any:
    """Starts TensorFlow; returns a strategy for several devices, `None` for one."""
    start_backend()
    import tensorflow as tf

    from utils.model.keras import limit_threads

    limit_threads(num_processors())
    kind = "GPU"
    if num_logical_cpus > 1:
        kind = "CPU"
        parts = [tf.config.LogicalDeviceConfiguration()] * num_logical_cpus
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, parts)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    _check_gpus(gpu, len(devices))
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None


def _start_jax(gpu: str, num_logical_cpus: int, hosts: Hosts | None) -> None:
    """Starts JAX; several devices, of all hosts, share each batch."""
    if num_logical_cpus > 1:
        flags = os.environ.get("XLA_FLAGS", "")
        count = f"--xla_force_host_platform_device_count={num_logical_cpus}"
        os.environ["XLA_FLAGS"] = f"{flags} {count}"
    if gpu.startswith("cpu"):
        os.environ["JAX_PLATFORMS"] = "cpu"
    if hosts is not None:
        join_hosts(hosts)
    import keras

    devices = keras.distribution.list_devices()
    _check_gpus(gpu, sum("cpu" not in name for name in devices))
    if len(devices) > 1:
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )


def _check_gpus(gpu: str, num_found: int) -> None:
    """Raises VoiceprintError if fewer GPUs are there than were named."""
    num_wanted = 0 if gpu.startswith("cpu") or not gpu else len(gpu.split(","))
    if num_wanted > num_found:
        raise VoiceprintError(
            f"--gpu {gpu} names {num_wanted} GPUs, {num_found} can be used; "
            "leave the option out to take what there is, or install the GPU driver"
        )
