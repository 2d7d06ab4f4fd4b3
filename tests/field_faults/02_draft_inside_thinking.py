"""A draft inside a model's thinking is not its answer, and thinking is no reason.

The server thinks aloud before it answers: in its thinking it drafts the JSON of another label. Run it in a checkout.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd

ITEMS = 12
LABELS = ["询问尺码", "申请退款"]
SPENT = "c11"
"""The server spends all of its tokens on thinking about this item."""


class Thinker(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply({"data": [{"id": "thinker", "max_model_len": 8192}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        texts = [self.answer(body)] * json.loads(body).get("n", 1)
        stop = "length" if SPENT in body else "stop"
        choices = [{"index": i, "message": {"content": t}, "finish_reason": stop} for i, t in enumerate(texts)]
        self.reply({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    def answer(self, body: str) -> str:
        draft = json.dumps({"理由": "先当作尺码问题", "所属类别": "询问尺码"}, ensure_ascii=False)
        thinking = f"<think>\n用户可能在问尺码，先写一个草稿 {draft}\n"
        if SPENT in body:
            return thinking
        item = re.search(r"c\d+", body)
        final = f"用户说{item[0] if item else ''}要退回，钱还没收到"
        if "所属类别" in body:
            final = json.dumps({"理由": final, "所属类别": "申请退款"}, ensure_ascii=False)
        return f"{thinking}不对，他要退钱。</think>\n\n{final}"

    def reply(self, answer: object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def write_items(file: Path, *, labelled: bool) -> None:
    head = f"你是一个网店客服助手。分类标签为：{json.dumps(LABELS, ensure_ascii=False)}\n<用户与客服的对话 START>\n"
    tail = "\n<用户与客服的对话 END>"
    letter = "b" if labelled else "c"
    items = [
        {"id": f"{letter}{i}", "instruction": f"{head}用户: 第c{i}单我要退{i * 7}元{tail}", "image": []}
        for i in range(ITEMS)
    ]
    if labelled:
        items = [item | {"output": "申请退款"} for item in items]
    file.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")


def run(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    write_items(folder / "labelled.json", labelled=True)
    write_items(folder / "pool.json", labelled=False)
    (folder / "images").mkdir()
    engine = f"{{engine: server, model: thinker, base_urls: ['{url}']}}"
    config = folder / "run.yaml"
    config.write_text(
        f"""pack: demo
labelled: {{manifest: {folder}/labelled.json, images: {folder}/images}}
unlabelled: {{manifest: {folder}/pool.json, images: {folder}/images}}
generator: {engine}
teacher: {engine}
output: {folder}/run
ledger: {folder}/ledger.sqlite
images: {folder}/cache
""",
        encoding="utf-8",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    module = "flows.commands.main" if Path("flows/commands/main.py").is_file() else "flows.cli"
    command = [sys.executable, "-m", module]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "LABELSTILL_PORT": port}
    try:
        return subprocess.run(
            [*command, "run", str(config)], env=environment, capture_output=True, text=True, timeout=400
        )
    finally:
        subprocess.run([*command, "stop"], env=environment, capture_output=True)


def find_fault(output: Path) -> str | None:
    answers = pd.read_parquet(output / "pseudo_labels" / "predictions.parquet").set_index("sample_id")
    drafts = answers[answers["label"] == "询问尺码"]
    if len(drafts):
        return f"{len(drafts)} of {len(answers)} answers were read from the draft in the thinking"
    if set(answers.drop(SPENT)["label"]) != {"申请退款"}:
        return "a final answer after the thinking was not read"
    if answers.loc[SPENT, "outcome"] != "only_thinking" or "max_tokens" not in answers.loc[SPENT, "detail"]:
        return f"an answer of nothing but thinking is reported as {answers.loc[SPENT, 'outcome']!r}"
    stage = output / "rationales"
    reasons = list(pd.read_parquet(stage / "kept.parquet")["reason"])
    if not reasons or any("think" in reason or "草稿" in reason for reason in reasons):
        return f"a reason contains the thinking: {reasons[:1]}"
    dropped = pd.read_parquet(stage / "dropped.parquet").set_index("sample_id")["reason"]
    if dropped["b11"] != "only_thinking":
        return f"a reason of nothing but thinking is reported as {dropped['b11']!r}"
    return None


def main() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Thinker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder), f"http://127.0.0.1:{server.server_port}/v1")
        if done.returncode:
            print(f"the run failed: {(done.stderr or done.stdout)[-800:]}")
            return 1
        fault = find_fault(Path(folder) / "run")
    if fault:
        print(fault)
    return 1 if fault else 0


if __name__ == "__main__":
    raise SystemExit(main())
