"""What is known of an executor's jobs between two attempts at their pods."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.integrations.airflow.jobs import Jobs, key_of


def test_the_key_of_a_tuple_and_of_a_dataclass_is_found():
    assert key_of(("key", "command", None)) == "key"
    assert key_of(SimpleNamespace(key="key")) == "key"


def test_what_is_no_job_is_not_counted():
    jobs = Jobs()
    jobs.put(key_of(0), 0.0)
    jobs.taken(key_of(0))

    assert key_of(0) is None
    assert jobs.waiting == 0


def test_of_two_jobs_of_one_key_the_older_is_outdated():
    jobs = Jobs()
    jobs.put("a", 0.0)
    jobs.put("a", 0.0)
    jobs.taken("a")

    assert jobs.outdated("a")
    jobs.taken("a")
    assert not jobs.outdated("a")


def test_a_job_that_was_put_back_is_ours_until_the_key_is_queued_anew():
    jobs = Jobs()
    jobs.put("a", 0.0, ours=True)
    assert jobs.put_back("a")
    jobs.put("a", 0.0)

    assert not jobs.put_back("a")


def test_the_name_is_kept_while_the_outcome_is_unknown_and_forgotten_when_it_is_settled():
    jobs = Jobs()
    jobs.unknown("a", "pod-1", "default", answers=(0, 0))

    assert jobs.attempt("a").name == "pod-1"
    jobs.settled("a")
    assert jobs.attempt("a") is None


def test_a_server_that_is_silent_for_everybody_is_not_the_jobs_fault():
    jobs = Jobs()

    assert [jobs.unknown("a", "pod-1", "default", answers=(0, 0)) for _ in range(5)] == [1] * 5


def test_attempts_count_while_the_server_answers_others():
    jobs = Jobs()

    assert [jobs.unknown("a", "pod-1", "default", (n, n)) for n in range(4)] == [1, 2, 3, 4]


def test_the_answers_of_an_attempt_itself_do_not_count_against_it():
    jobs = Jobs()

    # Refused as a name that exists, and then silent when asked whose it is.
    assert [jobs.unknown("a", "pod-1", "default", (n, n + 1)) for n in range(4)] == [1] * 4


def test_an_answer_that_says_nothing_of_the_pod_does_not_count():
    jobs = Jobs()
    jobs.unknown("a", "pod-1", "default", (0, 0))

    assert jobs.unknown("a", "pod-1", "default", (5, 6), counts=False) == 1


def test_whoever_waited_while_the_server_fell_silent_is_doubtful_until_settled():
    jobs = Jobs()
    jobs.put("a", 0.0)
    assert not jobs.doubtful("a")
    jobs.doubt_all()
    jobs.put("b", 0.0)

    assert jobs.doubtful("a")
    assert not jobs.doubtful("b")
    jobs.settled("a")
    assert not jobs.doubtful("a")


def test_another_name_is_another_attempt():
    jobs = Jobs()
    jobs.unknown("a", "pod-1", "default", answers=(0, 0))

    assert jobs.unknown("a", "pod-2", "default", answers=(9, 9)) == 1


def test_a_pod_that_the_watcher_reports_was_created():
    jobs = Jobs()
    jobs.unknown("a", "pod-1", "default", answers=(0, 0))
    jobs.unknown("b", "pod-2", "default", answers=(0, 0))
    jobs.pod_seen("pod-1")
    jobs.pod_seen("of somebody else")

    assert jobs.attempt("a").seen
    assert not jobs.attempt("b").seen


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=80))
def test_of_any_queue_only_the_newest_job_of_a_key_may_start(steps):
    jobs, queue, number, started = Jobs(), deque(), 0, {}
    newest: dict[str, int] = {}
    for step in [*steps, *[None] * len(steps)]:
        if step is not None:
            number += 1
            queue.append((step, number))
            newest[step] = number
            jobs.put(step, 0.0)
        elif queue:
            key, job = queue.popleft()
            jobs.taken(key)
            if not jobs.outdated(key):
                started[key] = job

                assert job == newest[key]
        assert jobs.waiting == len(queue)
    assert started == newest


def test_the_oldest_keeps_its_age_through_every_attempt_until_its_outcome_is_known():
    jobs = Jobs()
    jobs.put("a", 10.0)
    jobs.put("b", 20.0)
    jobs.taken("a")
    assert jobs.oldest() == 20.0, "a job in hand does not wait in the queue"

    jobs.put("a", 30.0, ours=True)
    assert jobs.oldest() == 10.0

    jobs.taken("a")
    jobs.settled("a")
    jobs.put("a", 40.0)
    assert jobs.oldest() == 20.0
