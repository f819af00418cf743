from files.nearest import suggest


def test_the_most_similar_name_is_suggested():
    assert suggest("sise", ["sides", "size", "rule"]) == "did you mean size?"
    assert suggest("sise", iter(["size"]), otherwise="") == "did you mean size?"


def test_without_a_similar_name_all_are_listed_or_another_hint_is_given():
    assert suggest("x", (name for name in ("size", "rule"))) == "there are size, rule"
    assert suggest("x", ["size"], otherwise="") == ""
