"""A Python-backend model whose behaviour the prompt scripts: a double of ours, and of
TensorRT-LLM's with its quirks.

It says its seed over and over, a word every 5 ms, or as the prompt's words tell: `hang` (say
nothing), `stall` (a word, then nothing), `refuse` (can never work), `fail` (an error), `break` (an
error in the middle), `reason=timeout`, `garble` (the double of TensorRT-LLM's: a number that is
none).
"""

from __future__ import annotations

from pathlib import Path

from proofloop.engine.triton.contract import LLMAPI_INPUTS, LLMAPI_OUTPUTS, OUR_INPUTS, OUR_OUTPUTS

_MODEL = """
import json, re, threading, time
import numpy, triton_python_backend_utils as pb

IS_OURS, SLOTS, INPUTS, OUTPUTS = {is_ours!r}, {slots!r}, {inputs!r}, {outputs!r}
INPUT_NAMES = [name for name in INPUTS]

def of(request, name, default=None):
    tensor = pb.get_input_tensor_by_name(request, name)
    value = default if tensor is None else tensor.as_numpy().reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else value

def text(name, value):
    return pb.Tensor(name, numpy.array([value.encode()], dtype=object))

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        for name, kind in INPUTS.items():
            config.add_input(dict(name=name, data_type=kind, dims=[-1], optional=True))
        for name, kind in OUTPUTS.items():
            config.add_output(dict(name=name, data_type=kind, dims=[-1]))
        config.set_max_batch_size(0)
        config.set_model_transaction_policy(dict(decoupled=True))
        return config

    def initialize(self, arguments):
        parameters = json.loads(arguments["model_config"])["parameters"]
        self.version = parameters.get("version", dict(string_value="?"))["string_value"]
        if "broken" in self.version:
            raise pb.TritonModelException("the weights of " + self.version + " are damaged")
        if "slow" in self.version:
            time.sleep(1)
        self.slots = threading.Semaphore(SLOTS)
        self.threads = set()

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            thread = threading.Thread(target=self.answer, args=(request, sender), daemon=True)
            self.threads.add(thread)
            thread.start()

    def finalize(self):
        for thread in list(self.threads):
            thread.join()

    def answer(self, request, sender):
        try:
            with self.slots:
                self.speak(request, sender)
        finally:
            self.threads.discard(threading.current_thread())

    def error(self, sender, problem, code):
        response = pb.InferenceResponse(error=pb.TritonError(problem, code))
        sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def speak(self, request, sender):
        prompt = of(request, "text_input")
        if IS_OURS:
            prompt = json.loads(of(request, "messages"))[-1]["content"]
        words, seed = prompt.split(), int(of(request, "sampling_param_seed", 0))
        limit = int(of(request, "sampling_param_max_tokens", 16))
        greedy = of(request, "sampling_param_temperature") is None
        echo = "" if IS_OURS or of(request, "sampling_param_exclude_input_from_output") else prompt
        if "refuse" in words:
            return self.error(sender, "the prompt is too long", pb.TritonError.INVALID_ARG)
        if "llmapi-refuse" in words:
            problem = "The prompt length (9) should be below max_seq_len"
            return self.error(sender, problem, pb.TritonError.INTERNAL)
        if "fail" in words:
            return self.error(sender, "something broke", pb.TritonError.INTERNAL)
        said, reason = "", "length"
        for number in range(limit):
            while "hang" in words or ("stall" in words and number == 1):
                time.sleep(0.01)
                if sender.is_cancelled():
                    return self.end(sender, said, "cancelled", number)
            if "break" in words and number == 2:
                return self.error(sender, "something broke", pb.TritonError.INTERNAL)
            if sender.is_cancelled():
                return self.end(sender, said, "cancelled", number)
            said += ("greedy" if greedy else str(seed)) + " "
            if of(request, "streaming"):
                sender.send(pb.InferenceResponse([text("text_output", echo + said)]))
            time.sleep(0.005)
        for word in words:
            reason = word[len("reason="):] if word.startswith("reason=") else reason
        if "think" in words:
            said = "<think>hmm</think>" + said
        self.end(sender, echo + said, reason, limit, "garbled" if "garble" in words else '"-1.5"')

    def end(self, sender, said, reason, count, logprob='"-1.5"'):
        outputs = [text("text_output", said), text("finish_reason", reason)]
        outputs.append(text("stop_reason", "None"))
        outputs.append(text("cumulative_logprob", logprob))  # declared a number, sent as text
        if IS_OURS:
            outputs = outputs[:2] + [
                text("model_version", self.version),
                pb.Tensor("prompt_token_ids", numpy.array([1, 2, 3], dtype=numpy.int32)),
                pb.Tensor("token_ids", numpy.full(count, 5, dtype=numpy.int32)),
                pb.Tensor("logprobs", numpy.full(count, -0.25, dtype=numpy.float32)),
                pb.Tensor("num_input_tokens", numpy.array([3], dtype=numpy.int32)),
                pb.Tensor("num_cached_tokens", numpy.array([2], dtype=numpy.int32)),
                pb.Tensor("num_output_tokens", numpy.array([count], dtype=numpy.int32)),
                pb.Tensor("engine_seconds", numpy.array([0.5], dtype=numpy.float32)),
            ]
        sender.send(pb.InferenceResponse(outputs), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def scripted_model(*, is_ours: bool = True, slots: int = 2000) -> str:
    """The source of a model.py."""
    values: dict[str, object] = {"is_ours": is_ours, "slots": slots}
    values["inputs"] = LLMAPI_INPUTS | OUR_INPUTS if is_ours else LLMAPI_INPUTS
    outputs = LLMAPI_OUTPUTS | OUR_OUTPUTS if is_ours else LLMAPI_OUTPUTS
    values["outputs"] = outputs | {"cumulative_logprob": "TYPE_STRING"}
    source = _MODEL
    for name, value in values.items():
        source = source.replace(f"{{{name}!r}}", repr(value))
    return source


def lay_model(repository: Path, name: str, source: str) -> None:
    """Put a model into a server's repository, as a deployment would."""
    folder = repository / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(source)
    (folder.parent / "config.pbtxt").write_text(
        'backend: "python"\ninstance_group [{kind: KIND_CPU}]\n'
    )
