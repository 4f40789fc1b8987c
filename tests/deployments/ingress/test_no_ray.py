"""HTTP tests need no Ray: the API and everything that it imports do without."""

import subprocess
import sys

IMPORT = "import sys, deployments.ingress.api; print({'ray', 'vllm'} & set(sys.modules))"


def test_the_api_imports_neither_ray_nor_vllm() -> None:
    result = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
