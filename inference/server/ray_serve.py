"""Serve the API from more than one machine, by Ray Serve.

On the machine that has the head of the cluster:

    pip install "ray[serve]"
    serve run inference.server.ray_serve:build replicas=4 device=cuda voices=/shared/voices

Every replica has a model and an engine of its own, which batches the takes that reach it. Ray places the
replicas, sends a request to one that has room, and replaces those that die. `voices` is a folder that all
machines see; the rate limit and `/metrics` are those of the replica that answers.
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
from inference.synthesizer import Synthesizer


class RayServeOptions(BaseModel):
    """The options that `serve run` takes as NAME=VALUE; the API key is CAT_TTS_API_KEY of the environment."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    tokenizer: str | None = None
    device: str | None = None
    """With cuda every replica gets one GPU for itself."""
    voices: Path | None = None
    slots: PositiveInt = 8
    waiting: PositiveInt = 32
    replicas: PositiveInt = 1
    cpus: float = 1.0
    """CPUs that Ray reserves for a replica."""


def build(options: RayServeOptions) -> serve.Application:
    """Build the application for `serve run` and `ray.serve.run`.

    Args:
        options: The model, and how many replicas of it to run.

    Returns:
        The application, whose replicas Ray starts.
    """
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
    """The class that Ray deploys; the API behind it does all the work."""


def create_replica(options: RayServeOptions, api_key: str | None) -> FastAPI:
    """Build the API of one replica, which loads its own model.

    Args:
        options: The model and its capacity.
        api_key: The key that clients must send; None lets everybody in.

    Returns:
        The application that the replica serves.
    """
    synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
    service = Service(synthesizer, slots=options.slots, waiting=options.waiting)
    return create_server(service, VoiceFolder(synthesizer, options.voices), api_key=api_key)
