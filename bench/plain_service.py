"""Plain FastAPI handler for comparison: it decodes an image and calls the model, without batches, store or keys."""

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
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    classifier, app = Classifier.load(args.model), FastAPI()

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, object]:
        (prediction,) = classifier.classify([await request.body()])
        return prediction.model_dump(mode="json")

    uvicorn.run(app, port=args.port, log_level="error")


if __name__ == "__main__":
    main()
