"""What people write by hand: a FastAPI handler that decodes an image and calls the model, without batches, store or keys."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, Request

from likely import Classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    classifier, app = Classifier.load(asked.model), FastAPI()

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, object]:
        (answer,) = classifier.classify([await request.body()])
        return answer.model_dump(mode="json")

    uvicorn.run(app, port=asked.port, log_level="error")


if __name__ == "__main__":
    main()
