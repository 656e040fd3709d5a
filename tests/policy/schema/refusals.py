"""How tests of parts of policy files say what is refused."""

import pytest
from pydantic import ValidationError


def texts(model, data):
    """What checks between fields refuse, as (path, text)."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    found = []
    for error in caught.value.errors():
        assert error["type"] == "policy", error
        for one in (error["ctx"], *error["ctx"].get("more", ())):
            found.append((one["at"], one["text"]))
    return found


def kinds(model, data):
    """Pydantic's names of what is wrong with single fields."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return {error["type"] for error in caught.value.errors()}
