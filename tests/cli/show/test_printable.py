from monitor.cli.show.printable import one_line, printable


def test_text_cannot_command_the_terminal():
    assert printable("a\x1b[2Jb\r\x07\x9b31m") == "a\\x1b[2Jb\\x0d\\x07\\x9b31m"


def test_text_cannot_reorder_itself():
    assert printable("user\u202egnp.exe") == "user\\u202egnp.exe"


def test_a_lone_surrogate_can_be_printed():
    assert printable("\udce9") == "\\udce9"


def test_ordinary_text_stays():
    text = "Grüße\n\t\U0001f468\u200d\U0001f469\u200d\U0001f467 日本 العربية"
    assert printable(text) == text


def test_a_quoted_token_stays_on_its_line():
    assert one_line("\n\t x") == "\\n\\t x"
