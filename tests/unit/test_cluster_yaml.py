"""cluster.yaml is one that Ray's own launcher takes."""

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).parent.parent.parent / "cluster.yaml"


def test_cluster_yaml_fits_the_schema_of_rays_launcher() -> None:
    validate_config(prepare_config(yaml.safe_load(CLUSTER.read_text())))


def test_the_cluster_is_closed_and_its_head_takes_no_scans() -> None:
    cluster = yaml.safe_load(CLUSTER.read_text())
    assert cluster["provider"]["use_internal_ips"] is True
    assert cluster["available_node_types"]["head"]["resources"] == {"CPU": 0}
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert "--dashboard-host=127.0.0.1" in "".join(starts)
