"""Whole agents: the same task for all of them, one rollout and one update a turn, and where its time goes."""

from __future__ import annotations

import pytest
import torch

from rims_rl.bench import train
from rims_rl.bench.config import TrainBenchConfig
from rims_rl.bench.train import OURS, PEERS, PEERS_ON_OURS, Agent, AgentTurn, measure_training, split_of

SMALL = {"game": "pong", "n_envs": 2, "n_steps": 4, "batch_size": 4, "n_epochs": 1}
RIM = Agent(
    "RIMPPO, RIM (LSTM)", core_settings=(("cell", "lstm"), ("num_units", 3), ("unit_size", 5), ("active_units", 2))
)


@pytest.fixture
def built():
    """Build agents, and close their environments when the test is over."""
    models = []

    def build(agent: Agent):
        models.append(AgentTurn(agent, **SMALL).build())
        return models[-1]

    yield build
    for model in models:
        model.get_env().close()


class TestAgents:
    def test_all_learn_with_the_same_hyperparameters(self, built):
        models = [built(agent) for agent in (RIM, *PEERS)]
        for model in models:
            assert (model.n_envs, model.n_steps, model.batch_size, model.n_epochs) == (2, 4, 4, 1)
            assert (model.learning_rate, model.clip_range(1.0), model.ent_coef) == (2.5e-4, 0.1, 0.01)
            assert (model.gamma, model.gae_lambda, model.vf_coef, model.max_grad_norm) == (0.99, 0.95, 0.5, 0.5)
        assert models[0].bptt_length == 4

    def test_ours_play_on_our_route_and_the_peers_on_theirs_and_on_ours(self, built):
        shapes = {
            agent.name: built(agent).get_env().unwrapped.observation_space.shape for agent in PEERS + PEERS_ON_OURS
        }
        routes = {name: "ours" if "our envs" in name else "theirs" for name in shapes}
        assert routes == {
            "RecurrentPPO": "theirs", "PPO": "theirs", "RecurrentPPO, our envs": "ours", "PPO, our envs": "ours",
        }  # fmt: skip
        assert {shapes[name] for name in shapes if routes[name] == "ours"} == {(4, 84, 84)}
        assert all(agent.route == "vector" for agent in OURS)

    def test_each_of_ours_has_the_memory_and_the_precision_of_its_name(self, built):
        for agent in OURS:
            policy = built(agent).policy
            kind = {"rim": "RIM", "lstm": "LSTM", "gru": "GRU"}[agent.core]
            assert type(policy.core).__name__ == kind
            assert policy.core.output_size == (510 if kind == "RIM" else 512)
            assert kind in agent.name
            assert policy.encoder_precision == ("bfloat16" if "bf16" in agent.name else "float32")
            if kind == "RIM":
                assert f"({policy.core.config.cell.upper()})" in agent.name

    @pytest.mark.parametrize("agent", [RIM, *PEERS], ids=lambda agent: agent.name)
    def test_a_turn_is_one_rollout_and_one_update_and_goes_on_where_the_last_one_ended(self, agent, built):
        model, turn = built(agent), AgentTurn(agent, **SMALL)
        work = turn.turn(model)
        work()
        before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        work()
        assert (model.num_timesteps, model._n_updates) == (16, 2)
        changed = [not torch.equal(before[name], tensor) for name, tensor in model.policy.state_dict().items()]
        assert any(changed)


class TestSplit:
    def test_the_peers_parts_add_up_to_the_turn(self, built, monkeypatch):
        model, now = built(PEERS_ON_OURS[1]), [0.0]
        monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])
        env = model.get_env()

        def taking(seconds, inner=lambda: None):
            def method(*_):
                now[0] += seconds
                inner()

            return method

        def turn():
            model.collect_rollouts()
            model.train()
            now[0] += 5.0

        monkeypatch.setattr(env, "step", taking(2.0))
        monkeypatch.setattr(model, "collect_rollouts", taking(3.0, lambda: (env.step(), env.step())))
        monkeypatch.setattr(model, "train", taking(7.0))
        assert split_of(model, turn) == {"environment": 4.0, "inference": 3.0, "update": 7.0, "rest": 5.0}

    def test_ours_are_told_by_the_agent_s_own_stopwatch_which_rests_otherwise(self, built):
        model = built(RIM)
        work = AgentTurn(RIM, **SMALL).turn(model)
        work()
        assert dict(model.stopwatch.seconds) == {}
        found = split_of(model, work)
        assert {"environment", "inference", "encoder", "core", "heads and loss", "optimizer", "rest"} <= set(found)
        assert all(found[name] > 0 for name in ("environment", "inference", "encoder", "core", "optimizer"))
        assert not model.stopwatch.enabled


class TestResult:
    def test_ratios_are_to_the_peers_and_every_agent_has_a_row_and_a_split(self, monkeypatch):
        monkeypatch.setattr(train, "OURS", (RIM,))
        monkeypatch.setattr(train, "peak_memory", lambda turn: float(turn.n_steps))
        sizes = {name: value for name, value in SMALL.items() if name != "game"}
        result = measure_training(TrainBenchConfig(repeats=1, same_env=False, **sizes), lambda _: None)
        assert [row.name for row in result.rows] == ["RIMPPO, RIM (LSTM)", "RecurrentPPO", "PPO"]
        assert result.peers == ["RecurrentPPO", "PPO"]
        speeds = {row.name: row.steps_per_second for row in result.rows}
        for row in result.rows:
            assert row.steps_per_second == pytest.approx(8 / row.seconds[0])
            assert row.mib == 4.0
            assert row.ratios == {peer: pytest.approx(speeds[row.name] / speeds[peer]) for peer in result.peers}
        assert list(result.split) == list(speeds)
        assert result.steps == 8
