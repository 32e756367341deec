"""Computes annotation vectors on many machines, as a pipeline of Apache Beam."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sat_keras.data.extraction import (
    Task,
    compiled_encoder,
    missing_features,
    write_features,
)
from sat_keras.data.features import FeatureCache

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise ImportError(
        'This extraction needs Apache Beam: `pip install ".[beam]"` in the checkout, or '
        f"`pip install apache-beam`. Received: {error}"
    ) from error


def extract_features_with_beam(
    pictures: Any,
    make_encoder: Callable[[], Any],
    directory: str | os.PathLike,
    batch_size: int = 32,
    mirror: bool = False,
    allow_truncated: bool = False,
    input_name: str = "annotations",
    options: Sequence[str] = (),
) -> FeatureCache:
    """Computes the annotation vectors of pictures that the cache lacks, with many workers.

    The result is that of `extract_features`: the cache has the same files, and a run that was
    stopped is resumed by calling the function again. The workers read the pictures and write to the
    cache by the paths given here, so both must lie on a file system that all of them share. Any
    runner of Beam serves; Beam's own runs on this machine.

    Args:
        pictures, directory, batch_size, mirror, allow_truncated, input_name: As of
            `extract_features`.
        make_encoder: Function without arguments that returns the `ImageEncoder`. Every worker calls
            it once. It must be importable in the workers (a function of a module, or a
            `functools.partial` of one) and return an encoder of equal weights at every call.
        options: Beam's pipeline options as on a command line, such as `["--runner=FlinkRunner"]`.
            On this machine two processes work with
            `["--direct_num_workers=2", "--direct_running_mode=multi_processing"]`.

    Returns:
        `FeatureCache` with the features of these pictures.

    Raises:
        FileNotFoundError, ValueError, OSError: As of `extract_features`; an error in a worker comes
            out as the runner's, with the message in it.

    Example:
    >>> make = functools.partial(ImageEncoder, "VGG16", weights="imagenet")
    >>> cache = extract_features_with_beam(table, make, "features")

    Reference:
        [Runners of Apache Beam](https://beam.apache.org/documentation/runners/capability-matrix/).
    """
    encoder = make_encoder()
    folder, tasks = missing_features(pictures, encoder, directory, mirror, input_name)
    encode = _Encode(make_encoder, encoder.fingerprint(), folder, batch_size, allow_truncated)
    batches = [tasks[start : start + batch_size] for start in range(0, len(tasks), batch_size)]
    if batches:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            # Without the shuffle a runner may give all batches to the worker that creates them.
            pipeline | beam.Create(batches) | beam.Reshuffle() | beam.ParDo(encode)
    return FeatureCache(folder, input_name=input_name)


class _Encode(beam.DoFn):
    """Encodes batches of pictures with one encoder a worker."""

    def __init__(
        self,
        make_encoder: Callable[[], Any],
        fingerprint: str,
        folder: Path,
        batch_size: int,
        allow_truncated: bool,
    ) -> None:
        self.make_encoder = make_encoder
        self.fingerprint = fingerprint
        self.folder = folder
        self.batch_size = batch_size
        self.allow_truncated = allow_truncated

    def setup(self) -> None:
        self.encoder = self.make_encoder()
        if self.encoder.fingerprint() != self.fingerprint:
            raise ValueError(
                "`make_encoder` must return an encoder of equal weights in every worker; load them "
                "from a file, or seed their initialisation. Received: another encoder than on the "
                f"machine that started the pipeline, {self.encoder.describe()}"
            )
        self.encode = compiled_encoder(self.encoder)

    def process(self, tasks: list[Task]) -> Iterator[int]:
        yield from write_features(
            tasks, self.encoder, self.encode, self.folder, self.batch_size, self.allow_truncated
        )
