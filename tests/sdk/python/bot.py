"""A bot on Microsoft's SDK for Python, as it would run against Graph: takes a call, places another one."""

from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.communications.calls.item.answer.answer_post_request_body import AnswerPostRequestBody
from msgraph.generated.communications.calls.item.mute.mute_post_request_body import MutePostRequestBody
from msgraph.generated.communications.calls.item.play_prompt.play_prompt_post_request_body import (
    PlayPromptPostRequestBody,
)
from msgraph.generated.communications.calls.item.record_response.record_response_post_request_body import (
    RecordResponsePostRequestBody,
)
from msgraph.generated.communications.calls.item.send_dtmf_tones.send_dtmf_tones_post_request_body import (
    SendDtmfTonesPostRequestBody,
)
from msgraph.generated.communications.calls.item.subscribe_to_tone.subscribe_to_tone_post_request_body import (
    SubscribeToTonePostRequestBody,
)
from msgraph.generated.communications.calls.item.transfer.transfer_post_request_body import TransferPostRequestBody
from msgraph.generated.communications.calls.item.unmute.unmute_post_request_body import UnmutePostRequestBody
from msgraph.generated.models.call import Call
from msgraph.generated.models.call_state import CallState
from msgraph.generated.models.communications_identity_set import CommunicationsIdentitySet
from msgraph.generated.models.identity import Identity
from msgraph.generated.models.identity_set import IdentitySet
from msgraph.generated.models.invitation_participant_info import InvitationParticipantInfo
from msgraph.generated.models.media_info import MediaInfo
from msgraph.generated.models.media_prompt import MediaPrompt
from msgraph.generated.models.modality import Modality
from msgraph.generated.models.o_data_errors.o_data_error import ODataError
from msgraph.generated.models.operation_status import OperationStatus
from msgraph.generated.models.record_operation import RecordOperation
from msgraph.generated.models.service_hosted_media_config import ServiceHostedMediaConfig
from msgraph.generated.models.tone import Tone

from harness import run, say


def phone(number):
    identity = IdentitySet(additional_data={"phone": {"@odata.type": "#microsoft.graph.identity", "id": number}})
    return InvitationParticipantInfo(
        odata_type="#microsoft.graph.invitationParticipantInfo", identity=identity
    )


async def main(place):
    node, callback, notifications = place.node, place.callback, place.notifications
    graph = GraphServiceClient(request_adapter=place.adapter(GraphRequestAdapter, "/v1.0"))
    calls = graph.communications.calls
    prompt = MediaPrompt(
        odata_type="#microsoft.graph.mediaPrompt",
        media_info=MediaInfo(uri=place.prompt, resource_id="p"),
    )

    incoming = await notifications.wait("call", lambda d: d.get("state") == "incoming")
    call = calls.by_call_id(incoming["id"])
    await call.answer.post(
        AnswerPostRequestBody(
            callback_uri=callback,
            accepted_modalities=[Modality.Audio],
            media_config=ServiceHostedMediaConfig(
                odata_type="#microsoft.graph.serviceHostedMediaConfig",
                pre_fetch_media=[prompt.media_info],
            ),
        )
    )
    established = await notifications.state(incoming["id"], "established")
    shown = await call.get()
    assert shown.state == CallState.Established, shown.state
    assert established["chain"] == shown.call_chain_id, established
    called = shown.targets[0].identity
    assert isinstance(called, CommunicationsIdentitySet), called
    assert called.application_instance.id.startswith("sip:bot@"), called
    say(step="established")

    await call.subscribe_to_tone.post(SubscribeToTonePostRequestBody(client_context="tones"))
    say(press="5")
    tone = await notifications.wait("tone", lambda d: d.get("toneInfo"))
    assert tone["toneInfo"]["tone"] == "tone5", tone

    played = await call.play_prompt.post(PlayPromptPostRequestBody(prompts=[prompt], client_context="hello"))
    end = await notifications.ended(played)
    assert end["resultInfo"]["code"] == 200 and end["clientContext"] == "hello", end
    say(step="played")

    participants = (await call.participants.get()).value
    assert len(participants) == 2 and not participants[1].is_muted, participants
    await call.mute.post(MutePostRequestBody(client_context="m"))
    own = await call.participants.by_participant_id(shown.my_participant_id).get()
    assert own.is_muted, own
    unmuted = await call.unmute.post(UnmutePostRequestBody())
    assert unmuted.status == OperationStatus.Completed, unmuted
    await call.keep_alive.post()

    keys = await call.send_dtmf_tones.post(
        SendDtmfTonesPostRequestBody(tones=[Tone.Tone1, Tone.Pound], delay_between_tones_ms=100)
    )
    end = await notifications.ended(keys)
    assert end["completionReason"] == "completedSuccessfully", end

    record = await call.record_response.post(
        RecordResponsePostRequestBody(
            max_record_duration_in_seconds=6,
            initial_silence_timeout_in_seconds=5,
            max_silence_timeout_in_seconds=5,
            play_beep=True,
            client_context=incoming["id"],
        )
    )
    assert isinstance(record, RecordOperation) and record.status == OperationStatus.Running, record
    end = await notifications.ended(record)
    assert end["resultInfo"]["code"] == 200 and end["clientContext"] == incoming["id"], end
    again = await call.operations.by_comms_operation_id(record.id).get()
    assert isinstance(again, RecordOperation) and again.status == OperationStatus.Completed, again
    await place.clip(again, "clip.wav")
    say(step="recorded")

    await call.delete()
    over = await notifications.state(incoming["id"], "terminated")
    assert over["changeType"] == "deleted", over
    try:
        await call.get()
        raise AssertionError("the call is over")
    except ODataError as error:
        assert error.response_status_code == 404 and error.error.code == "8522", error
        assert error.error.inner_error.request_id, error

    placed = await calls.post(
        Call(
            odata_type="#microsoft.graph.call",
            callback_uri=callback,
            requested_modalities=[Modality.Audio],
            targets=[phone("200")],
            media_config=ServiceHostedMediaConfig(odata_type="#microsoft.graph.serviceHostedMediaConfig"),
            tenant_id=node["tenant"],
        )
    )
    assert placed.targets[0].identity.phone.id == "200", placed
    await notifications.state(placed.id, "established")
    await calls.by_call_id(placed.id).transfer.post(TransferPostRequestBody(transfer_target=phone("201")))
    await notifications.state(placed.id, "transferAccepted")
    over = await notifications.state(placed.id, "terminated")
    assert over["resultInfo"]["subcode"] == 7015, over
    say(step="transferred")


if __name__ == "__main__":
    run(main)
