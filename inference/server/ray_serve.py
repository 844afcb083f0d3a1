"""The API on more than one machine, by Ray Serve, from the machine that has the head of the cluster:

    pip install "ray[serve]"
    serve run inference.server.ray_serve:build replicas=4 device=cuda voices=/shared/voices

Every replica has a model and an engine of its own, which batches the takes that reach it. Ray places the
replicas, sends a request to one that has room, and replaces those that die. `voices` is a folder that all
machines see; the rate limit and `/metrics` are those of the replica that is asked.
"""

import os
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, PositiveInt
from ray import serve  # pyright: ignore[reportMissingImports]  # large, and for clusters alone

from inference.server.app import create_server
from inference.server.run import API_KEY
from inference.server.voice_store import VoiceFolder
from inference.synthesis.service import Service
from inference.synthesis.synthesizer import Synthesizer


class Options(BaseModel):
    """What `serve run` takes as NAME=VALUE. The API key is CAT_TTS_API_KEY of the environment."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    tokenizer: str | None = None
    device: str | None = None
    """With cuda every replica is given a GPU of its own."""
    voices: Path | None = None
    slots: PositiveInt = 8
    waiting: PositiveInt = 32
    replicas: PositiveInt = 1
    cpus: float = 1.0
    """Of a replica."""


def build(options: Options) -> serve.Application:
    """The application for `serve run` and `ray.serve.run`."""
    api_key = os.environ.get(API_KEY) or None

    def replica() -> FastAPI:  # Ray calls it on the machine of the replica
        return create_replica(options, api_key)

    gpus = 1 if (options.device or "").startswith("cuda") else 0
    deployment = serve.deployment(
        name="cat-tts",
        num_replicas=options.replicas,
        max_ongoing_requests=options.slots + options.waiting,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": gpus},
    )
    return deployment(serve.ingress(replica)(Replica)).bind()


class Replica:
    """All that it does, its API does."""


def create_replica(options: Options, api_key: str | None) -> FastAPI:
    """The API of one replica, with a model of its own."""
    synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
    service = Service(synthesizer, slots=options.slots, waiting=options.waiting)
    return create_server(service, VoiceFolder(synthesizer, options.voices), api_key=api_key)
