"""What workers on other machines need of this one."""

import sys

from jobs.cluster.network import find_interface, passed_on
from jobs.training.portability import PINNED


def test_the_interface_of_an_address_is_found():
    assert find_interface("127.0.0.1") == ("lo0" if sys.platform == "darwin" else "lo")
    assert find_interface("203.0.113.9") is None


def test_variables_of_network_and_instruction_sets_are_passed_on_and_no_others():
    tuned = PINNED | {
        "NCCL_SOCKET_IFNAME": "eth1",
        "GLOO_SOCKET_IFNAME": "eth1",
        "PYTORCH_ALLOC_CONF": "x",
        "TORCH_NCCL_A": "1",
    }
    assert passed_on({**tuned, "AWS_SECRET_ACCESS_KEY": "s", "HOME": "/root", "MY_NCCL_X": "1"}) == tuned
