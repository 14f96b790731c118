import signal
import subprocess
import sys
import urllib.request

SCRIPT = """
import sys
import ray
from carl.serving.local import serve_forever
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
serve_forever(sys.argv[1], port=int(sys.argv[2]), threads=1, on_ready=lambda url: print(url, flush=True))
print("cpus", ray.available_resources()["CPU"], flush=True)
"""


def test_it_serves_until_it_is_told_to_stop(models: dict[str, str]) -> None:
    from carl.serving.local import _free_port

    port = str(_free_port())
    command = [sys.executable, "-c", SCRIPT, models["llava"], port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = process.stdout.readline()
            assert said == f"http://127.0.0.1:{port}/v1\n", said or process.stderr.read()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as answer:
                assert models["llava"] in answer.read().decode()
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert out == "cpus 1.0\n", errors
    assert process.returncode == 0
