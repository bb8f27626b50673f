"""The plain proof-of-concept service: FastAPI around a transformers text-generation pipeline, one request at a time."""

import argparse
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline


class Ask(BaseModel):
    prompt: str
    max_length: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(2)
    where = {"pretrained_model_name_or_path": str(options.weights.parent), "gguf_file": options.weights.name}
    model = AutoModelForCausalLM.from_pretrained(**where)
    generate = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(**where))
    app = FastAPI()

    @app.post("/generate")
    def answer(ask: Ask) -> dict:
        made = generate(ask.prompt, max_new_tokens=ask.max_length, do_sample=False, return_full_text=False)
        text = made[0]["generated_text"]
        return {"generated_text": text, "tokens": len(generate.tokenizer(text).input_ids)}

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
