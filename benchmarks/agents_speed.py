"""One measurement in a process of its own, printed as JSON: `agents_speed.py {nearopt,sb3,sbx} ENV HIDDEN BATCH`,
`seeds N HIDDEN BATCH`, `memory`. Runs under the peers' Python too, and imports only what it measures."""

import json
import sys
import time

WARM, STEPS = 1_000, 2_000  # the first compile, fill caches, and are not counted


def nearopt(environment: str, hidden: int, batch: int) -> float:
    from nearopt import SAC

    agent = SAC(environment, seed=0, batch_size=batch, policy_kwargs=dict(net_arch=[hidden, hidden]))
    return timed(agent)


def sb3(environment: str, hidden: int, batch: int) -> float:
    from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

    return timed(SAC("MlpPolicy", environment, seed=0, batch_size=batch, policy_kwargs=dict(net_arch=[hidden, hidden])))


def sbx(environment: str, hidden: int, batch: int) -> float:
    from sbx import SAC  # pyright: ignore[reportMissingImports]

    return timed(SAC("MlpPolicy", environment, seed=0, batch_size=batch, policy_kwargs=dict(net_arch=[hidden, hidden])))


def timed(agent) -> float:
    """Seconds per step."""
    agent.learn(WARM)
    start = time.perf_counter()
    agent.learn(STEPS)
    return (time.perf_counter() - start) / STEPS


def seeds(count: int, hidden: int, batch: int) -> float:
    """Seconds per step of all seeds."""
    from nearopt import SAC
    from nearopt.agents.agent import learn
    from nearopt.agents.session import Session

    arch = dict(net_arch=[hidden, hidden])
    agents = [SAC("nearopt/Pendulum-v0", seed=k, batch_size=batch, policy_kwargs=arch) for k in range(count)]
    steps = STEPS if hidden < 256 else STEPS // 4
    for n in (WARM, steps):
        start = time.perf_counter()
        with Session(n, log_every=steps) as session:
            session.begin(agents)
            learn(agents, session)
    return (time.perf_counter() - start) / steps


def memory() -> dict[str, float]:
    """What 10⁶ transitions add to the process, and how long they take to arrive."""
    import numpy as np

    from nearopt.agents.replay import Replay
    from nearopt.agents.task import Task

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    task, before = Task(17, low=(-1.0,) * 6, high=(1.0,) * 6), resident()
    replay, n = Replay(task, 10**6), 1000
    rows = [np.zeros((n, *column.shape[1:]), column.dtype) for column in replay.rows.values()]
    start = time.perf_counter()
    for first in range(0, 10**6, n):
        replay.extend(dict(zip(replay.rows, rows, strict=True)), first)
    replay.following[:] = -1
    return dict(bytes=resident() - before, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "memory":
        print(json.dumps(memory()))
    elif what == "seeds":
        print(json.dumps(dict(seconds=seeds(*map(int, rest)))))
    else:
        measure = {"nearopt": nearopt, "sb3": sb3, "sbx": sbx}[what]
        print(json.dumps(dict(seconds=measure(rest[0], int(rest[1]), int(rest[2])))))
