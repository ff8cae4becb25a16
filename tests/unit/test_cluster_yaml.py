"""The cluster files are ones that Ray's launcher and KubeRay take. Nothing here starts or stops Ray."""

import os
import re
import shlex
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import NightlyConfig, ScoreConfig
from mribatch.settings.train import TrainConfig

ROOT = Path(__file__).parent.parent.parent
IN_IMAGE = "/mribatch/"
CONFIGS = {"score.py": ScoreConfig, "evaluate.py": EvaluateConfig, "train.py": TrainConfig, "nightly.py": NightlyConfig}
DEPLOYED = ["rayjob.yaml", "raycronjob.yaml"]


def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def setups() -> list[list[str]]:
    """The setup commands of every kind of node, as the launcher merges them."""
    config = prepare_config(cluster())
    own = [
        node["worker_setup_commands"]
        for node in cluster()["available_node_types"].values()
        if "worker_setup_commands" in node
    ]
    return [config["head_setup_commands"], config["worker_setup_commands"], *own]


def ray_starts() -> list[str]:
    config = cluster()
    return [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]


def job(name: str) -> dict[str, Any]:
    """The RayJob's spec in a file of deploy/."""
    spec = yaml.safe_load((ROOT / "deploy" / name).read_text())["spec"]
    return dict(spec.get("jobTemplate", spec))


# The launcher's cluster


def test_cluster_yaml_fits_the_schema_of_rays_launcher() -> None:
    validate_config(prepare_config(cluster()))


def test_the_launcher_adds_no_setup_of_its_own() -> None:
    config = prepare_config(cluster())
    assert config["head_setup_commands"] == config["worker_setup_commands"] == cluster()["setup_commands"]


def test_every_command_is_shell() -> None:
    config = cluster()
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in {*starts, *(command for setup in setups() for command in setup)}:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_head_takes_no_scans() -> None:
    config = cluster()
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


def test_nodes_are_private_and_go_when_idle() -> None:
    config = cluster()
    assert config["provider"]["use_internal_ips"] is True
    assert config["provider"]["cache_stopped_nodes"] is False
    assert 0 < config["idle_timeout_minutes"] <= 10


def test_only_gpu_workers_are_spot() -> None:
    types = cluster()["available_node_types"]
    assert [name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]] == ["gpu"]
    assert types["gpu"]["resources"]["GPU"] == 1


def test_every_ray_start_asks_for_the_token_and_has_flags_that_exist() -> None:
    assert len(ray_starts()) == 2
    for command in ray_starts():
        words = shlex.split(command)
        assert "RAY_AUTH_MODE=token" in words[: words.index("ray")]
        start.make_context("start", words[words.index("ray") + 2 :])  # parses, runs nothing


def test_a_stopped_job_has_a_minute_and_the_dashboard_is_on_loopback() -> None:
    head, worker = ray_starts()
    assert "RAY_JOB_STOP_WAIT_TIME_S=60" in head.split()
    assert "--dashboard-host=127.0.0.1" in head.split()
    assert "dashboard" not in worker


def test_the_token_becomes_its_owners_only_before_anything_else_runs(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    for setup in setups():
        token.write_text("token")
        token.chmod(0o644)
        assert re.fullmatch(r"chmod [0-7]+ ~/\.ray && chmod [0-7]+ ~/\.ray/auth_token", setup[0])
        subprocess.run(["bash", "-c", setup[0]], check=True, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert "~/.ray/auth_token" in cluster()["file_mounts"]


def test_every_node_gets_the_lock_the_token_mode_and_the_region() -> None:
    region = cluster()["provider"]["region"]
    for setup in setups():
        assert any("--no-deps --requirement ~/mribatch/requirements.lock" in command for command in setup)
        assert any(f"RAY_AUTH_MODE=token AWS_DEFAULT_REGION={region} " in command for command in setup)
    assert "tensorflow[and-cuda]" in setups()[-1][-1]


# What a job uploads


def test_the_upload_of_a_job_is_its_code(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"

    def upload(folder: str, excludes: list[str] | None = None, is_file: bool = False) -> None:
        assert not is_file
        create_package(folder, package, include_gitignore=True, excludes=excludes)

    upload_working_dir_if_needed({"working_dir": str(ROOT)}, include_gitignore=True, upload_fn=upload)
    names = zipfile.ZipFile(package).namelist()
    assert {"jobs/score.py", "jobs/train.py", "mribatch/__init__.py"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"jobs", "mribatch"}
    assert not [name for name in names if "__pycache__" in name]
    assert package.stat().st_size < 2_000_000


# Kubernetes


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_deployed_job_is_one_that_exists_with_flags_that_exist(name: str) -> None:
    python, script, *flags = shlex.split(job(name)["entrypoint"])
    path = script.removeprefix(IN_IMAGE)
    assert (python, path) == ("python", "jobs/" + Path(path).name)
    assert (ROOT / path).is_file()
    tyro.cli(CONFIGS[Path(path).name], args=flags)


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_deployed_cluster_asks_for_the_token_and_runs_the_locks_ray(name: str) -> None:
    spec = job(name)["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert f"\nray=={spec['rayVersion']}\n" in (ROOT / "requirements.lock").read_text()
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"} in head["env"]


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_deployed_job_ends_with_its_cluster_and_is_not_tried_twice(name: str) -> None:
    spec = job(name)
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] == 0
    assert spec["activeDeadlineSeconds"] > 0


def test_the_nightly_cluster_is_the_jobs() -> None:
    nightly, once = job("raycronjob.yaml"), job("rayjob.yaml")
    assert nightly["rayClusterSpec"] == once["rayClusterSpec"]
    assert "jobs/nightly.py" in nightly["entrypoint"]
