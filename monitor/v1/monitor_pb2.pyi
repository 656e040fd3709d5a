import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_PROMPT: _ClassVar[Phase]
    PHASE_RESPONSE: _ClassVar[Phase]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_LOW: _ClassVar[Severity]
    SEVERITY_MEDIUM: _ClassVar[Severity]
    SEVERITY_HIGH: _ClassVar[Severity]
    SEVERITY_CRITICAL: _ClassVar[Severity]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ALLOW: _ClassVar[Action]
    ACTION_ALERT: _ClassVar[Action]
    ACTION_SUPPRESS: _ClassVar[Action]
    ACTION_BLOCK: _ClassVar[Action]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_ENFORCE: _ClassVar[Mode]
    MODE_SHADOW: _ClassVar[Mode]

class ClampWhere(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLAMP_WHERE_UNSPECIFIED: _ClassVar[ClampWhere]
    CLAMP_WHERE_ACTIVE: _ClassVar[ClampWhere]
    CLAMP_WHERE_EVERYWHERE: _ClassVar[ClampWhere]

class ErrorTerm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_TERM_UNSPECIFIED: _ClassVar[ErrorTerm]
    ERROR_TERM_KEEP: _ClassVar[ErrorTerm]
    ERROR_TERM_DROP: _ClassVar[ErrorTerm]

class CheckStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECK_STATUS_UNSPECIFIED: _ClassVar[CheckStatus]
    CHECK_STATUS_CHECKED: _ClassVar[CheckStatus]
    CHECK_STATUS_UNKNOWN: _ClassVar[CheckStatus]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_POLICY: _ClassVar[FinishReason]
    FINISH_REASON_ERROR: _ClassVar[FinishReason]

class Holding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLDING_UNSPECIFIED: _ClassVar[Holding]
    HOLDING_HOLD: _ClassVar[Holding]
    HOLDING_SAMPLE: _ClassVar[Holding]
    HOLDING_END: _ClassVar[Holding]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]
    ROLE_TOOL: _ClassVar[Role]
PHASE_UNSPECIFIED: Phase
PHASE_PROMPT: Phase
PHASE_RESPONSE: Phase
SEVERITY_UNSPECIFIED: Severity
SEVERITY_LOW: Severity
SEVERITY_MEDIUM: Severity
SEVERITY_HIGH: Severity
SEVERITY_CRITICAL: Severity
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_ALERT: Action
ACTION_SUPPRESS: Action
ACTION_BLOCK: Action
MODE_UNSPECIFIED: Mode
MODE_ENFORCE: Mode
MODE_SHADOW: Mode
CLAMP_WHERE_UNSPECIFIED: ClampWhere
CLAMP_WHERE_ACTIVE: ClampWhere
CLAMP_WHERE_EVERYWHERE: ClampWhere
ERROR_TERM_UNSPECIFIED: ErrorTerm
ERROR_TERM_KEEP: ErrorTerm
ERROR_TERM_DROP: ErrorTerm
CHECK_STATUS_UNSPECIFIED: CheckStatus
CHECK_STATUS_CHECKED: CheckStatus
CHECK_STATUS_UNKNOWN: CheckStatus
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_POLICY: FinishReason
FINISH_REASON_ERROR: FinishReason
HOLDING_UNSPECIFIED: Holding
HOLDING_HOLD: Holding
HOLDING_SAMPLE: Holding
HOLDING_END: Holding
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
ROLE_TOOL: Role

class ChatMessage(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: Role
    content: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., content: _Optional[str] = ...) -> None: ...

class Conversation(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("text", "conversation", "truncate", "session_id", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    text: str
    conversation: Conversation
    truncate: bool
    session_id: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, text: _Optional[str] = ..., conversation: _Optional[_Union[Conversation, _Mapping]] = ..., truncate: _Optional[bool] = ..., session_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Clamp(_message.Message):
    __slots__ = ("feature", "target", "where", "error_term")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TERM_FIELD_NUMBER: _ClassVar[int]
    feature: int
    target: float
    where: ClampWhere
    error_term: ErrorTerm
    def __init__(self, feature: _Optional[int] = ..., target: _Optional[float] = ..., where: _Optional[_Union[ClampWhere, str]] = ..., error_term: _Optional[_Union[ErrorTerm, str]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("input", "sampling", "clamps", "include_tokens", "logprobs")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CLAMPS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    input: Input
    sampling: Sampling
    clamps: _containers.RepeatedCompositeFieldContainer[Clamp]
    include_tokens: bool
    logprobs: int
    def __init__(self, input: _Optional[_Union[Input, _Mapping]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., clamps: _Optional[_Iterable[_Union[Clamp, _Mapping]]] = ..., include_tokens: _Optional[bool] = ..., logprobs: _Optional[int] = ...) -> None: ...

class LikelyToken(_message.Message):
    __slots__ = ("token_id", "text", "data", "logprob")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    text: str
    data: bytes
    logprob: float
    def __init__(self, token_id: _Optional[int] = ..., text: _Optional[str] = ..., data: _Optional[bytes] = ..., logprob: _Optional[float] = ...) -> None: ...

class TokenLogprobs(_message.Message):
    __slots__ = ("position", "text_offset", "token", "likeliest")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIKELIEST_FIELD_NUMBER: _ClassVar[int]
    position: int
    text_offset: int
    token: LikelyToken
    likeliest: _containers.RepeatedCompositeFieldContainer[LikelyToken]
    def __init__(self, position: _Optional[int] = ..., text_offset: _Optional[int] = ..., token: _Optional[_Union[LikelyToken, _Mapping]] = ..., likeliest: _Optional[_Iterable[_Union[LikelyToken, _Mapping]]] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("feature", "value", "value_after_clamp")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUE_AFTER_CLAMP_FIELD_NUMBER: _ClassVar[int]
    feature: int
    value: float
    value_after_clamp: float
    def __init__(self, feature: _Optional[int] = ..., value: _Optional[float] = ..., value_after_clamp: _Optional[float] = ...) -> None: ...

class ScoredToken(_message.Message):
    __slots__ = ("position", "token_id", "text", "phase", "readings")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    position: int
    token_id: int
    text: str
    phase: Phase
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    def __init__(self, position: _Optional[int] = ..., token_id: _Optional[int] = ..., text: _Optional[str] = ..., phase: _Optional[_Union[Phase, str]] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ...) -> None: ...

class ConditionScore(_message.Message):
    __slots__ = ("name", "score", "threshold", "reached")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    name: str
    score: float
    threshold: float
    reached: bool
    def __init__(self, name: _Optional[str] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., reached: _Optional[bool] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("position", "token_id", "text", "score", "readings", "condition")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    token_id: int
    text: str
    score: float
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    condition: str
    def __init__(self, position: _Optional[int] = ..., token_id: _Optional[int] = ..., text: _Optional[str] = ..., score: _Optional[float] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ..., condition: _Optional[str] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("policy", "rule", "category", "severity", "action", "mode", "phase", "position", "score", "threshold", "evidence", "conditions", "call")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    policy: str
    rule: str
    category: str
    severity: Severity
    action: Action
    mode: Mode
    phase: Phase
    position: int
    score: float
    threshold: float
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    conditions: _containers.RepeatedCompositeFieldContainer[ConditionScore]
    call: str
    def __init__(self, policy: _Optional[str] = ..., rule: _Optional[str] = ..., category: _Optional[str] = ..., severity: _Optional[_Union[Severity, str]] = ..., action: _Optional[_Union[Action, str]] = ..., mode: _Optional[_Union[Mode, str]] = ..., phase: _Optional[_Union[Phase, str]] = ..., position: _Optional[int] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., conditions: _Optional[_Iterable[_Union[ConditionScore, _Mapping]]] = ..., call: _Optional[str] = ...) -> None: ...

class RuleScore(_message.Message):
    __slots__ = ("policy", "rule", "phase", "score", "threshold", "conditions")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    policy: str
    rule: str
    phase: Phase
    score: float
    threshold: float
    conditions: _containers.RepeatedCompositeFieldContainer[ConditionScore]
    def __init__(self, policy: _Optional[str] = ..., rule: _Optional[str] = ..., phase: _Optional[_Union[Phase, str]] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., conditions: _Optional[_Iterable[_Union[ConditionScore, _Mapping]]] = ...) -> None: ...

class Coverage(_message.Message):
    __slots__ = ("tokens_run", "tokens_scored", "tokens_truncated", "tokens_judged", "tokens_sinks")
    TOKENS_RUN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SCORED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_JUDGED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SINKS_FIELD_NUMBER: _ClassVar[int]
    tokens_run: int
    tokens_scored: int
    tokens_truncated: int
    tokens_judged: int
    tokens_sinks: int
    def __init__(self, tokens_run: _Optional[int] = ..., tokens_scored: _Optional[int] = ..., tokens_truncated: _Optional[int] = ..., tokens_judged: _Optional[int] = ..., tokens_sinks: _Optional[int] = ...) -> None: ...

class Suppression(_message.Message):
    __slots__ = ("policy", "features", "tokens_edited", "before", "after", "probe_score", "probe_threshold", "held_at_layer", "came_back", "held")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_EDITED_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PROBE_SCORE_FIELD_NUMBER: _ClassVar[int]
    PROBE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    HELD_AT_LAYER_FIELD_NUMBER: _ClassVar[int]
    CAME_BACK_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    policy: str
    features: _containers.RepeatedScalarFieldContainer[int]
    tokens_edited: int
    before: float
    after: float
    probe_score: float
    probe_threshold: float
    held_at_layer: bool
    came_back: bool
    held: bool
    def __init__(self, policy: _Optional[str] = ..., features: _Optional[_Iterable[int]] = ..., tokens_edited: _Optional[int] = ..., before: _Optional[float] = ..., after: _Optional[float] = ..., probe_score: _Optional[float] = ..., probe_threshold: _Optional[float] = ..., held_at_layer: _Optional[bool] = ..., came_back: _Optional[bool] = ..., held: _Optional[bool] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("status", "matched", "action", "detections", "scores", "coverage", "failure", "suppressions")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SUPPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    status: CheckStatus
    matched: bool
    action: Action
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    scores: _containers.RepeatedCompositeFieldContainer[RuleScore]
    coverage: Coverage
    failure: str
    suppressions: _containers.RepeatedCompositeFieldContainer[Suppression]
    def __init__(self, status: _Optional[_Union[CheckStatus, str]] = ..., matched: _Optional[bool] = ..., action: _Optional[_Union[Action, str]] = ..., detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., scores: _Optional[_Iterable[_Union[RuleScore, _Mapping]]] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., failure: _Optional[str] = ..., suppressions: _Optional[_Iterable[_Union[Suppression, _Mapping]]] = ...) -> None: ...

class Digests(_message.Message):
    __slots__ = ("model", "dictionary", "policies")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    model: str
    dictionary: str
    policies: str
    def __init__(self, model: _Optional[str] = ..., dictionary: _Optional[str] = ..., policies: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("input", "include_tokens", "answer")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    input: Input
    include_tokens: bool
    answer: bool
    def __init__(self, input: _Optional[_Union[Input, _Mapping]] = ..., include_tokens: _Optional[bool] = ..., answer: _Optional[bool] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("request_id", "verdict", "tokens", "digests")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    verdict: Verdict
    tokens: _containers.RepeatedCompositeFieldContainer[ScoredToken]
    digests: Digests
    def __init__(self, request_id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., tokens: _Optional[_Iterable[_Union[ScoredToken, _Mapping]]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: Generation
    def __init__(self, generation: _Optional[_Union[Generation, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("request_id", "text", "finish_reason", "verdict", "tokens", "digests", "refusal", "logprobs")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    text: str
    finish_reason: FinishReason
    verdict: Verdict
    tokens: _containers.RepeatedCompositeFieldContainer[ScoredToken]
    digests: Digests
    refusal: str
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprobs]
    def __init__(self, request_id: _Optional[str] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., tokens: _Optional[_Iterable[_Union[ScoredToken, _Mapping]]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ..., refusal: _Optional[str] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprobs, _Mapping]]] = ...) -> None: ...

class GenerateStreamRequest(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: Generation
    def __init__(self, generation: _Optional[_Union[Generation, _Mapping]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("text", "tokens", "logprobs")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedCompositeFieldContainer[ScoredToken]
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprobs]
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[ScoredToken, _Mapping]]] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprobs, _Mapping]]] = ...) -> None: ...

class Final(_message.Message):
    __slots__ = ("finish_reason", "verdict", "digests", "refusal")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    verdict: Verdict
    digests: Digests
    refusal: str
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ..., refusal: _Optional[str] = ...) -> None: ...

class GenerateStreamResponse(_message.Message):
    __slots__ = ("request_id", "chunk", "detection", "final")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DETECTION_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    chunk: Chunk
    detection: Detection
    final: Final
    def __init__(self, request_id: _Optional[str] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., detection: _Optional[_Union[Detection, _Mapping]] = ..., final: _Optional[_Union[Final, _Mapping]] = ...) -> None: ...

class StreamBegin(_message.Message):
    __slots__ = ("input", "holding", "sample_tokens", "expected_tokens", "unread", "calls")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    HOLDING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    input: Input
    holding: Holding
    sample_tokens: int
    expected_tokens: int
    unread: int
    calls: _containers.RepeatedCompositeFieldContainer[CallText]
    def __init__(self, input: _Optional[_Union[Input, _Mapping]] = ..., holding: _Optional[_Union[Holding, str]] = ..., sample_tokens: _Optional[int] = ..., expected_tokens: _Optional[int] = ..., unread: _Optional[int] = ..., calls: _Optional[_Iterable[_Union[CallText, _Mapping]]] = ...) -> None: ...

class CallText(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class StreamPiece(_message.Message):
    __slots__ = ("role", "text", "part", "settle", "unread", "call")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    role: Role
    text: str
    part: str
    settle: bool
    unread: int
    call: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., text: _Optional[str] = ..., part: _Optional[str] = ..., settle: _Optional[bool] = ..., unread: _Optional[int] = ..., call: _Optional[str] = ...) -> None: ...

class StreamEnd(_message.Message):
    __slots__ = ("finish_reason",)
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("begin", "piece", "end")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    begin: StreamBegin
    piece: StreamPiece
    end: StreamEnd
    def __init__(self, begin: _Optional[_Union[StreamBegin, _Mapping]] = ..., piece: _Optional[_Union[StreamPiece, _Mapping]] = ..., end: _Optional[_Union[StreamEnd, _Mapping]] = ...) -> None: ...

class StreamProgress(_message.Message):
    __slots__ = ("characters", "bytes", "blocked")
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    characters: int
    bytes: int
    blocked: bool
    def __init__(self, characters: _Optional[int] = ..., bytes: _Optional[int] = ..., blocked: _Optional[bool] = ...) -> None: ...

class StreamFinal(_message.Message):
    __slots__ = ("finish_reason", "verdict", "digests", "refusal", "holding", "released_unread", "prompt_tokens", "answer_tokens", "texts")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    HOLDING_FIELD_NUMBER: _ClassVar[int]
    RELEASED_UNREAD_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    verdict: Verdict
    digests: Digests
    refusal: str
    holding: Holding
    released_unread: int
    prompt_tokens: int
    answer_tokens: int
    texts: _containers.RepeatedCompositeFieldContainer[TextVerdict]
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ..., refusal: _Optional[str] = ..., holding: _Optional[_Union[Holding, str]] = ..., released_unread: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., answer_tokens: _Optional[int] = ..., texts: _Optional[_Iterable[_Union[TextVerdict, _Mapping]]] = ...) -> None: ...

class TextVerdict(_message.Message):
    __slots__ = ("call", "verdict")
    CALL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    call: str
    verdict: Verdict
    def __init__(self, call: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("request_id", "progress", "detection", "final")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DETECTION_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    progress: StreamProgress
    detection: Detection
    final: StreamFinal
    def __init__(self, request_id: _Optional[str] = ..., progress: _Optional[_Union[StreamProgress, _Mapping]] = ..., detection: _Optional[_Union[Detection, _Mapping]] = ..., final: _Optional[_Union[StreamFinal, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Rule(_message.Message):
    __slots__ = ("name", "phases", "action", "mode", "threshold", "features", "weights", "signal", "probe", "session", "conditions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    phases: _containers.RepeatedScalarFieldContainer[Phase]
    action: Action
    mode: Mode
    threshold: float
    features: _containers.RepeatedScalarFieldContainer[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    signal: str
    probe: bool
    session: bool
    conditions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., phases: _Optional[_Iterable[_Union[Phase, str]]] = ..., action: _Optional[_Union[Action, str]] = ..., mode: _Optional[_Union[Mode, str]] = ..., threshold: _Optional[float] = ..., features: _Optional[_Iterable[int]] = ..., weights: _Optional[_Iterable[float]] = ..., signal: _Optional[str] = ..., probe: _Optional[bool] = ..., session: _Optional[bool] = ..., conditions: _Optional[_Iterable[str]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "title", "category", "severity", "description", "maturity", "rules", "clamps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MATURITY_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    CLAMPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    category: str
    severity: Severity
    description: str
    maturity: str
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    clamps: _containers.RepeatedCompositeFieldContainer[Clamp]
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., category: _Optional[str] = ..., severity: _Optional[_Union[Severity, str]] = ..., description: _Optional[str] = ..., maturity: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., clamps: _Optional[_Iterable[_Union[Clamp, _Mapping]]] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "digests")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    digests: Digests
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ...) -> None: ...

class ReloadPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadPoliciesResponse(_message.Message):
    __slots__ = ("digests", "changed", "added", "removed")
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    digests: Digests
    changed: bool
    added: _containers.RepeatedScalarFieldContainer[str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digests: _Optional[_Union[Digests, _Mapping]] = ..., changed: _Optional[bool] = ..., added: _Optional[_Iterable[str]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("input", "top_k")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    input: Input
    top_k: int
    def __init__(self, input: _Optional[_Union[Input, _Mapping]] = ..., top_k: _Optional[int] = ...) -> None: ...

class InspectedToken(_message.Message):
    __slots__ = ("position", "token_id", "text", "features")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    position: int
    token_id: int
    text: str
    features: _containers.RepeatedCompositeFieldContainer[Reading]
    def __init__(self, position: _Optional[int] = ..., token_id: _Optional[int] = ..., text: _Optional[str] = ..., features: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("request_id", "tokens", "coverage", "digests")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tokens: _containers.RepeatedCompositeFieldContainer[InspectedToken]
    coverage: Coverage
    digests: Digests
    def __init__(self, request_id: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[InspectedToken, _Mapping]]] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ...) -> None: ...

class WatchDetectionsRequest(_message.Message):
    __slots__ = ("policies", "minimum_severity", "include_shadow", "include_unknown", "after")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_SEVERITY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SHADOW_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedScalarFieldContainer[str]
    minimum_severity: Severity
    include_shadow: bool
    include_unknown: bool
    after: str
    def __init__(self, policies: _Optional[_Iterable[str]] = ..., minimum_severity: _Optional[_Union[Severity, str]] = ..., include_shadow: _Optional[bool] = ..., include_unknown: _Optional[bool] = ..., after: _Optional[str] = ...) -> None: ...

class WatchDetectionsResponse(_message.Message):
    __slots__ = ("cursor", "dropped", "time", "request_id", "trace_id", "session_id", "caller", "method", "outcome", "status", "failure", "action", "detections", "coverage", "digests", "record")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    dropped: int
    time: _timestamp_pb2.Timestamp
    request_id: str
    trace_id: str
    session_id: str
    caller: str
    method: str
    outcome: str
    status: CheckStatus
    failure: str
    action: Action
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    coverage: Coverage
    digests: Digests
    record: int
    def __init__(self, cursor: _Optional[str] = ..., dropped: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ..., trace_id: _Optional[str] = ..., session_id: _Optional[str] = ..., caller: _Optional[str] = ..., method: _Optional[str] = ..., outcome: _Optional[str] = ..., status: _Optional[_Union[CheckStatus, str]] = ..., failure: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., digests: _Optional[_Union[Digests, _Mapping]] = ..., record: _Optional[int] = ...) -> None: ...
