from serving.telemetry.call import Call, actor, caller, set_current


def test_where_nobody_is_asked_for_a_token_a_history_has_the_name_that_the_request_claims() -> None:
    assert actor("ada") == "ada"
    assert actor("") == "unknown"


def test_a_caller_who_was_identified_acts_by_that_name_whatever_the_request_claims() -> None:
    call = Call("Promote", address="10.0.0.1")
    set_current(call)
    try:
        assert (caller(), actor("ada")) == ("10.0.0.1", "ada")
        call.caller = "grace"
        assert caller() == actor("ada") == "grace"
    finally:
        set_current(None)
