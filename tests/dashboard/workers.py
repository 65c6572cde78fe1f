"""What stands for a worker: it answers what it is told to, on a socket of its own."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def answering(pages: Mapping[str, str], *, otherwise: int = 404) -> Iterator[str]:
    """Its URL; `pages`: by path, and they may change meanwhile; `otherwise`: others' status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            body = (page or "").encode()
            self.send_response(200 if page is not None else otherwise)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def vllm(*, model: str = "m", running: float = 0, tokens: float = 0) -> str:
    """A page of vLLM's, of two engines."""
    labels = [f'{{engine="{engine}",model_name="{model}"}}' for engine in (0, 1)]
    lines = [
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        *(f"vllm:num_requests_running{each} {running / 2}" for each in labels),
        "# TYPE vllm:num_requests_waiting gauge",
        *(f"vllm:num_requests_waiting{each} 3.0" for each in labels),
        "# TYPE vllm:kv_cache_usage_perc gauge",
        f"vllm:kv_cache_usage_perc{labels[0]} 0.25",
        f"vllm:kv_cache_usage_perc{labels[1]} 0.75",
        "# TYPE vllm:generation_tokens counter",
        *(f"vllm:generation_tokens_total{each} {tokens / 2}" for each in labels),
        "# TYPE python_gc_objects_collected counter",
        'python_gc_objects_collected_total{generation="0"} 5217.0',
    ]
    return "\n".join(lines) + "\n"
