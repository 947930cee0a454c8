"""Every mutant can still be made: a text that has moved on would be one that nobody breaks any more."""

from collections import Counter

from tests.mutants import MUTANTS, ROOT


def test_the_text_of_every_mutant_is_in_its_file_once():
    sources = {mutant.file: (ROOT / "nc_tools" / mutant.file).read_text(encoding="utf-8") for mutant in MUTANTS}
    assert [mutant for mutant in MUTANTS if sources[mutant.file].count(mutant.old) != 1] == []


def test_every_mutant_changes_something_and_names_tests_that_are_there():
    assert [mutant for mutant in MUTANTS if mutant.old == mutant.new] == []
    assert [mutant for mutant in MUTANTS if not (ROOT / mutant.tests.split()[0]).is_file()] == []


def test_no_mutant_is_made_twice():
    assert [mutant for mutant, times in Counter(MUTANTS).items() if times > 1] == []
