"""The scripts for Slurm and Kubernetes are run with stand-ins for what a cluster has."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = {
    "python": '#!/bin/sh\necho "$SLURM_NODEID$JOB_COMPLETION_INDEX: $*" >> "$SAID"\nexit "$CODE"\n',
    "srun": '#!/bin/sh\nshift\nSLURM_NODEID=0 "$@" && SLURM_NODEID=1 "$@"\n',
    "scontrol": '#!/bin/sh\n[ "$1" = show ] && printf "node1\\nnode2\\n" || echo "scontrol $*" >> "$SAID"\n',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A project folder whose python says how it was called, and commands of Slurm."""
    for name, script in STAND_INS.items():
        for folder in ("bin", ".venv/bin"):
            place = tmp_path / folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(script)
            place.chmod(0o755)
    said = tmp_path / "said"
    said.touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(said))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return said


SLURM = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "41234"}


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (1, False)])
def test_slurm_starts_each_machine_and_requeues_what_saved(code, requeued, cluster, tmp_path):
    script = ROOT / "launchers/slurm/train.sbatch"
    command = ["bash", str(script), "--data", "my shards", "--workdir", "RUN"]
    done = subprocess.run(command, env={**os.environ, **SLURM, "CODE": str(code)}, timeout=30)
    assert done.returncode == code
    said = cluster.read_text().splitlines()
    assert ("scontrol requeue 41234" in said) == requeued
    started = [line for line in said if "restartable.py" in line]
    assert len(started) == (2 if code == 0 else 1)
    for number, line in enumerate(started):
        assert line.startswith(
            f"{number}: launchers/restartable.py deepspeed --hostfile {tmp_path}/hostfile."
        )
        assert (
            f"--no_ssh --node_rank {number} --master_addr node1 --master_port 21234 launchers/train.py"
            in line
        )
        assert line.endswith("--resume auto --data my shards --workdir RUN")
    assert not list(tmp_path.glob("hostfile.*"))


def test_the_job_of_kubernetes_starts_the_same_command(cluster):
    documents = list(yaml.safe_load_all((ROOT / "launchers/kubernetes/job.yaml").read_text()))
    service, job = (json.loads(json.dumps(document)) for document in documents)
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completions"] == spec["parallelism"] == 2
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    rules = {rule["action"]: rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"]}
    assert rules == {"Ignore": [os.EX_TEMPFAIL], "FailJob": [2]}
    environment = {**os.environ, "JOB_COMPLETION_INDEX": "1", "CODE": "75"}
    done = subprocess.run([*container["command"], *container["args"]], env=environment, timeout=30)
    assert done.returncode == os.EX_TEMPFAIL
    (line,) = cluster.read_text().splitlines()
    assert "--node_rank 1 --master_addr ufo-0.ufo" in line and line.endswith("--resume auto")
    hostfile = Path(line.split("--hostfile ")[1].split()[0])
    assert hostfile.read_text() == "ufo-0.ufo slots=8\nufo-1.ufo slots=8\n"
