"""
Signs by which a mail without any machine-readable report is told: a bounce, an automatic reply, or a person's mail.

The tables are data: who writes it, what its subject says, what its first words are.
"""

import re

from distributor.bounces.phrases import Kind
from distributor.bounces.reading import Evidence

DAEMONS = (
    *("mailer-daemon", "mailer_daemon", "mailerdaemon", "postmaster", "mail delivery", "maildelivery", "mail-daemon"),
    *(
        "mail administrator",
        "mailadmin",
        "mail-admin",
        "mdaemon",
        "system administrator",
        "systemadministrat",
        "daemon",
    ),
    *("mail system", "mailsystem", "mail server", "mailserver", "delivery subsystem", "delivery system", "smtp server"),
    *(
        "mail router",
        "message router",
        "mail gateway",
        "mailgate",
        "internet mail",
        "postoffice",
        "post office",
        "ndr@",
    ),
    *(
        "microsoft exchange",
        "microsoft outlook",
        "administrateur système",
        "administrador del sistema",
        "amministratore",
    ),
    *(
        "mail transfer",
        "mail transport",
        "undelivered",
        "bounce-handler",
        "bounced",
        "mailmaster",
        "mail robot",
        "email-abuse",
    ),
    *(
        "mail service",
        "administrator@",
        "admin@",
        "smtpd",
        "non-delivery",
        "delivery report",
        "mailagent",
        "系统",
        "系統",
        "メール",
    ),
)
UNDELIVERED = (
    *(
        "undeliver",
        "undelivrable",
        "returned mail",
        "returned message",
        "returned to sender",
        "return to sender",
        "failure notice",
    ),
    *("delivery status notification", "delivery failure", "delivery failed", "delivery error", "delivery problem"),
    *("delivery notification", "delivery report", "delivery status", "delivery has failed", "delivery unsuccessful"),
    *(
        "mail delivery",
        "message delivery",
        "delivery to",
        "not delivered",
        "not be delivered",
        "n't be delivered",
        "be delivered",
    ),
    *(
        "mail failed",
        "mail failure",
        "failed mail",
        "mail error",
        "mail system error",
        "mail returned",
        "message returned",
    ),
    *("returning message", "returning mail", "nondeliver", "non-deliver", "non deliver", "nondelivery", "ndn:", "ndr:"),
    *(
        "unable to deliver",
        "undelivered",
        "user unknown",
        "unknown user",
        "unknown recipient",
        "no such user",
        "bounced mail",
    ),
    *(
        "bounce message",
        "message bounced",
        "mail status report",
        "mail not deliver",
        "warning: message",
        "warning: could not",
    ),
    *(
        "error sending",
        "error mail",
        "mail could not",
        "message could not",
        "message you sent",
        "message status",
        "rejected",
    ),
    *("problem delivering", "address does not exist", "invalid address", "address error", "transient", "delay", "dsn:"),
    *(
        "returned email",
        "returned e-mail",
        "bounce",
        "unzustellbar",
        "zustellung",
        "nicht zugestellt",
        "olevererbar",
        "ej levererat",
    ),
    *(
        "kunde inte levereras",
        "leveransfel",
        "meddelandet kunde inte",
        "leverans",
        "non remis",
        "échec",
        "echec",
        "non délivr",
    ),
    *("non distribu", "no se puede entregar", "no se pudo entregar", "no entregad", "error de entrega", "não entregue"),
    *(
        "nao entregue",
        "não foi entregue",
        "falha na entrega",
        "não é possível entregar",
        "mancat",
        "non recapit",
        "recapito",
    ),
    *(
        "onbestelbaar",
        "niet bezorgd",
        "niet afgeleverd",
        "kan ikke leveres",
        "ikke levert",
        "ikke leveret",
        "uleverbar",
    ),
    *(
        "ei voitu toimittaa",
        "toimittam",
        "toimitus",
        "niedostarcz",
        "nie dostarcz",
        "zwrot",
        "nedoruč",
        "недостав",
        "не доставлен",
    ),
    *(
        "не было доставлено",
        "невозможно доставить",
        "доставк",
        "iletilem",
        "teslim",
        "配信",
        "送信でき",
        "配送",
        "エラー",
        "不達",
    ),
    *("退信", "无法投递", "無法", "未送达", "投递失败", "投遞", "배달", "전송", "반송"),
)
OPENINGS = (
    *("wasn't able to deliver", "was not able to deliver", "could not be delivered", "couldn't be delivered"),
    *("unable to deliver", "undeliverable", "delivery has failed", "delivery failed", "permanent fatal errors"),
    *(
        "permanent error",
        "failed permanently",
        "did not reach",
        "cannot be delivered",
        "can not be delivered",
        "can't be delivered",
    ),
    *(
        "not be delivered",
        "not delivered",
        "was returned",
        "returned to you",
        "returned to sender",
        "being returned",
        "bounced",
    ),
    *(
        "transcript of session",
        "mail delivery",
        "delivery to the following",
        "error occurred",
        "failed addresses",
        "non-delivery",
    ),
    *(
        "was undelivered",
        "following address",
        "following recipient",
        "has been rejected",
        "was rejected",
        "user unknown",
    ),
)
ANSWERS = re.compile(r"^\s*(?:re|sv|aw|vs|fwd?|vb|wg|tr|rv|enc|antw|odp)\s*:", re.IGNORECASE)

AWAY = (
    *(
        "out of office",
        "out of the office",
        "out-of-office",
        "vacation",
        "on holiday",
        "on leave",
        "annual leave",
        "away from",
    ),
    *(
        "auto-reply: out",
        "frånvaro",
        "inte på kontoret",
        "semester",
        "föräldraledig",
        "tjänstledig",
        "abwesend",
        "abwesenheit",
    ),
    *(
        "nicht im büro",
        "urlaub",
        "absent",
        "absence",
        "en congé",
        "fuera de la oficina",
        "ausente",
        "ausencia",
        "ausência",
    ),
    *("fora do escritório", "fuori sede", "fuori ufficio", "assenza", "afwezig", "niet aanwezig", "fravær", "ferie"),
    *(
        "poissa",
        "lomalla",
        "nieobecn",
        "poza biurem",
        "отсутств",
        "вне офиса",
        "отпуск",
        "不在",
        "休暇",
        "外出",
        "休假",
        "부재",
    ),
    *("i am away", "i'm away", "maternity", "parental leave", "will be back", "will return on", "currently away"),
)
AUTOMATIC = (
    *(
        "automatic reply",
        "auto reply",
        "autoreply",
        "auto-reply",
        "automated reply",
        "automatic response",
        "auto response",
    ),
    *("autoresponse", "auto-response", "autoresponder", "automated response", "autosvar", "automatiskt svar", "auto:"),
    *(
        "automatische antwort",
        "automatische beantwortung",
        "réponse automatique",
        "reponse automatique",
        "respuesta automática",
    ),
    *("resposta automática", "risposta automatica", "automatisch antwoord", "automatisk svar", "automaattinen vastaus"),
    *(
        "automatyczna odpowiedź",
        "autoodpowiedź",
        "automatická odpověď",
        "автоматический ответ",
        "автоответ",
        "自動応答",
        "自動返信",
    ),
    *(
        "自动回复",
        "自動回覆",
        "자동 회신",
        "자동응답",
        "otomatik yanıt",
        "thank you for your message",
        "thank you for contacting",
    ),
    *(
        "ticket #",
        "[ticket",
        "case #",
        "we have received your",
        "confirmation of receipt",
        "your request has been received",
    ),
)
CHALLENGES = (
    *("please confirm your message", "confirm your e-mail", "confirm your email", "click the link below to deliver"),
    *(
        "sender verification",
        "verify that you are",
        "prove you are",
        "verify you are human",
        "challenge",
        "whitelist request",
    ),
    *(
        "awaiting verification",
        "awaits moderator approval",
        "awaiting approval",
        "is being held",
        "confirm subscription",
    ),
    *("confirmation request", "confirm your request", "requires confirmation", "reply to this message to confirm"),
    *("approval required", "spam arrest", "boxbe", "permission to send", "held for moderation", "moderator"),
)
AUTOMATIC_FIELDS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponse",
    "x-autoreply-from",
    "x-vacation",
    "x-mail-autoreply",
)

LATE = (
    *("has not yet been delivered", "not yet been delivered", "has not been delivered within", "will be retried"),
    *(
        "will continue to",
        "will keep trying",
        "still being retried",
        "still trying",
        "do not need to resend",
        "is delayed",
    ),
    *(
        "don't need to resend",
        "no action is required",
        "delivery attempts will continue",
        "has been delayed",
        "been delayed",
    ),
    *("delivery is delayed", "delivery delayed", "temporarily delayed", "warning message only", "this is a warning"),
    *(
        "this is only a warning",
        "not been able to deliver",
        "will try again",
        "will be attempted",
        "delivery delay",
        "delayed mail",
    ),
    *(
        "could not send message for past",
        "message has been queued",
        "har fördröjts",
        "fördröj",
        "verzögert",
        "verzögerung",
    ),
    *("retardé", "retrasad", "demorad", "atrasad", "ritardo", "vertraagd", "forsinket", "viivästy", "opóźni", "задерж"),
    *(
        "遅延",
        "遅れ",
        "延迟",
        "延遲",
        "will be returned if",
        "attempts to deliver the message will continue",
        "will be tried",
    ),
    *("continue trying", "tried again", "retry until", "kommer att försöka", "noch nicht", "weiterhin versuch"),
)
ENDED = (
    *(
        "permanent",
        "gave up",
        "giving up",
        "given up",
        "not going to try again",
        "will not be retried",
        "fatal errors -",
    ),
    *("no further attempts", "will be deleted from queue", "failed to deliver", "has been returned", "user unknown"),
)


def is_bounce(evidence: Evidence) -> bool:
    """Whether a server speaks of a mail that it could not deliver."""
    headers = evidence.headers
    if headers.get("x-failed-recipients") or "delivery-status" in headers.get("content-type").lower():
        return True
    subject = headers.get("subject").lower()
    notice = " ".join(evidence.notice.lower().replace("’", "'").split())[:1500]
    named = _names(UNDELIVERED, subject) and not ANSWERS.match(subject)
    opened = _names(OPENINGS, notice)
    if _from_a_daemon(evidence):
        return named or opened or "report" in headers.get("content-type").lower() or not ANSWERS.match(subject)
    return named and (opened or headers.get("return-path").strip() in ("<>", ""))


def reply_kind(evidence: Evidence) -> Kind | None:
    """Which automatic reply it is, if it is one."""
    headers = evidence.headers
    subject = headers.get("subject").lower()
    opening = " ".join(evidence.notice.lower().split())[:400]
    reported = _first(UNDELIVERED, subject) < _first((*AWAY, *AUTOMATIC, *CHALLENGES), subject)
    if reported and (_from_a_daemon(evidence) or is_bounce(evidence)):
        return None
    if _names(AWAY, subject):
        return Kind.OUT_OF_OFFICE
    automatic = _names(AUTOMATIC, subject) or _names(CHALLENGES, subject) or _says_so(evidence)
    if not automatic and (_from_a_daemon(evidence) or not _names((*AWAY, *CHALLENGES), opening)):
        return None
    return Kind.OUT_OF_OFFICE if _names(AWAY, opening) else Kind.AUTO_REPLY


def delay_announced(evidence: Evidence) -> bool:
    """Whether the server goes on trying."""
    text = f"{evidence.headers.get('subject')} {evidence.notice}".lower().replace("’", "'")
    text = " ".join(text.split())
    return _names(LATE, text) and not _names(ENDED, text)


def _says_so(evidence: Evidence) -> bool:
    """RFC 3834 and what stood for it before. Servers put it on bounces too, so it counts only for others."""
    headers = evidence.headers
    if any(headers.get(name) for name in AUTOMATIC_FIELDS):
        return True
    told = headers.get("auto-submitted").lower().startswith("auto-replied")
    old = headers.get("precedence").lower() in {"auto_reply", "auto-reply", "autoreply"}
    return (told or old) and not is_bounce(evidence)


def _from_a_daemon(evidence: Evidence) -> bool:
    written_by = f"{evidence.headers.get('from')} {evidence.headers.get('sender')}".lower()
    return _names(DAEMONS, written_by) or evidence.headers.get("return-path").lower().startswith("<mailer-daemon")


def _names(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _first(phrases: tuple[str, ...], text: str) -> int:
    return min((at for phrase in phrases if (at := text.find(phrase)) >= 0), default=len(text) + 1)
