"""Commands that train in a few seconds."""

TINY = "--set net_arch=[8] --set batch_size=8 learning_starts=50".split()
SHORT = ["--env-kwargs", "max_episode_steps=20"]
WORDS = "train sac Pendulum-v1 --total-timesteps 300 --log-every 100 --checkpoint-every 100".split() + TINY + SHORT
TOGETHER = "train sac nearopt/Pendulum-v0 --total-timesteps 400 --log-every 100 --checkpoint-every 150".split() + TINY
