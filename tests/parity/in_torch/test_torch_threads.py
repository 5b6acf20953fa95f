"""The library works on torch's threads, as many as torch does."""

import subprocess
import sys
import textwrap

import polyhead
import pytest
import torch
from polyhead.torch import scaled_dot_product_attention


@pytest.fixture(autouse=True)
def one_thread_again():
    yield
    torch.set_num_threads(1)


def test_their_number_is_torchs():
    x = torch.randn(1, 8, 64, 32)
    results = []
    for threads in (1, 3, 2):
        torch.set_num_threads(threads)
        results.append(scaled_dot_product_attention(x, x, x))
        assert polyhead.get_num_threads() == threads
    polyhead.set_num_threads(5)
    scaled_dot_product_attention(x, x, x)
    assert polyhead.get_num_threads() == 2
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_they_are_torchs():
    """Of a process whose torch has started its own, ours starts no more."""
    run("""
        import os, torch
        from polyhead.torch import scaled_dot_product_attention as attend
        count = lambda: len(os.listdir("/proc/self/task"))
        torch.set_num_threads(4)
        alone = count()
        torch.ones(1 << 22).sin_()
        started = count()
        assert started >= alone + 3
        x = torch.randn(1, 8, 256, 64)
        attend(x, x, x)
        assert count() == started
    """)


def test_calls_from_many_threads_of_python():
    run("""
        import threading, torch
        from polyhead.torch import scaled_dot_product_attention as attend
        torch.set_num_threads(2)
        x = torch.randn(1, 8, 256, 64)
        want = attend(x, x, x)
        right = []
        def work():
            for _ in range(20):
                right.append(torch.equal(attend(x, x, x), want))
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert right == [True] * 60
    """)


def test_training_from_many_threads_of_python():
    """On one module: forwards that differentiate, beside others that do not."""
    run("""
        import threading, torch
        from polyhead.torch import MultiheadAttention
        torch.set_num_threads(2)
        module = MultiheadAttention(64, 8, batch_first=True)
        x = torch.randn(4, 32, 64)
        def answers(x):
            leaf = x.clone().requires_grad_()
            out = module(leaf, leaf, leaf)[0]
            return [out, *torch.autograd.grad(out.square().sum(), [leaf, *module.parameters()])]
        want = [answers(x), answers(-x)]
        right = []
        def work(i):
            for _ in range(20):
                right.append(all(map(torch.equal, answers(-x if i else x), want[i])))
                with torch.no_grad():
                    right.append(torch.equal(module(x, x, x)[0], want[0][0]))
        threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert right == [True] * 160
    """)


def test_modules_that_share_parameters_on_many_threads():
    """On the operator's way, which has one packed copy for all calls of like parameters."""
    run("""
        import sys, threading, torch
        from polyhead.torch import MultiheadAttention
        from torch.autograd.graph import saved_tensors_hooks
        torch.set_num_threads(1)
        modules = [MultiheadAttention(64, 4, batch_first=True) for _ in range(2)]
        modules[1].in_proj_weight = modules[0].in_proj_weight
        x = torch.randn(2, 5, 64)
        def answer(i):
            with torch.no_grad(), saved_tensors_hooks(lambda x: x, lambda x: x):
                return modules[i](x, x, x)[0]
        want = [answer(0), answer(1)]
        assert not torch.equal(*want)
        right = []
        def work(i):
            for _ in range(150):
                right.append(torch.equal(answer(i), want[i]))
        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert right == [True] * 600, right.count(False)
    """)


def test_a_forked_child_computes():
    """Where torch's threads are not."""
    run("""
        import os, signal, torch
        from polyhead.torch import scaled_dot_product_attention as attend
        torch.set_num_threads(2)
        x = torch.randn(1, 8, 256, 64)
        want = attend(x, x, x).numpy().tobytes()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(attend(x, x, x).numpy().tobytes() != want)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert attend(x, x, x).numpy().tobytes() == want
    """)


def run(program):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
