"""A bot on Microsoft's beta SDK for Python: rejects, redirects, plays, records, and uses the rarer actions."""

from msgraph_beta import GraphRequestAdapter, GraphServiceClient
from msgraph_beta.generated.communications.calls.item.answer.answer_post_request_body import AnswerPostRequestBody
from msgraph_beta.generated.communications.calls.item.cancel_media_processing.cancel_media_processing_post_request_body import (
    CancelMediaProcessingPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.participants.item.mute.mute_post_request_body import (
    MutePostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.participants.item.start_hold_music.start_hold_music_post_request_body import (
    StartHoldMusicPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.participants.item.stop_hold_music.stop_hold_music_post_request_body import (
    StopHoldMusicPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.play_prompt.play_prompt_post_request_body import (
    PlayPromptPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.record.record_post_request_body import RecordPostRequestBody
from msgraph_beta.generated.communications.calls.item.redirect.redirect_post_request_body import (
    RedirectPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.reject.reject_post_request_body import RejectPostRequestBody
from msgraph_beta.generated.communications.calls.item.send_dtmf_tones.send_dtmf_tones_post_request_body import (
    SendDtmfTonesPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.start_recording.start_recording_post_request_body import (
    StartRecordingPostRequestBody,
)
from msgraph_beta.generated.communications.calls.item.update_recording_status.update_recording_status_post_request_body import (
    UpdateRecordingStatusPostRequestBody,
)
from msgraph_beta.generated.models.call import Call
from msgraph_beta.generated.models.call_state import CallState
from msgraph_beta.generated.models.identity_set import IdentitySet
from msgraph_beta.generated.models.invitation_participant_info import InvitationParticipantInfo
from msgraph_beta.generated.models.media_info import MediaInfo
from msgraph_beta.generated.models.media_prompt import MediaPrompt
from msgraph_beta.generated.models.modality import Modality
from msgraph_beta.generated.models.o_data_errors.o_data_error import ODataError
from msgraph_beta.generated.models.operation_status import OperationStatus
from msgraph_beta.generated.models.play_prompt_completion_reason import PlayPromptCompletionReason
from msgraph_beta.generated.models.record_completion_reason import RecordCompletionReason
from msgraph_beta.generated.models.recording_status import RecordingStatus
from msgraph_beta.generated.models.reject_reason import RejectReason
from msgraph_beta.generated.models.service_hosted_media_config import ServiceHostedMediaConfig
from msgraph_beta.generated.models.tone import Tone

from harness import run, say


def phone(number):
    identity = IdentitySet(additional_data={"phone": {"@odata.type": "#microsoft.graph.identity", "id": number}})
    return InvitationParticipantInfo(
        odata_type="#microsoft.graph.invitationParticipantInfo", identity=identity
    )


def media():
    return ServiceHostedMediaConfig(odata_type="#microsoft.graph.serviceHostedMediaConfig")


async def main(place):
    callback, notifications = place.callback, place.notifications
    graph = GraphServiceClient(request_adapter=place.adapter(GraphRequestAdapter, "/beta"))
    calls = graph.communications.calls
    prompt = MediaPrompt(
        odata_type="#microsoft.graph.mediaPrompt",
        media_info=MediaInfo(uri=place.prompt, resource_id="p"),
    )
    known = set()

    async def next_call():
        say(dial="bot")
        told = await notifications.wait(
            "call", lambda d: d.get("state") == "incoming" and d["id"] not in known
        )
        known.add(told["id"])
        return told["id"], calls.by_call_id(told["id"])

    id, call = await next_call()
    await call.reject.post(RejectPostRequestBody(reason=RejectReason.Busy))
    assert (await notifications.state(id, "terminated"))["changeType"] == "deleted"
    say(step="rejected")

    id, call = await next_call()
    await call.redirect.post(RedirectPostRequestBody(targets=[phone("+4930123")], timeout=30))
    await notifications.state(id, "terminated")
    say(step="redirected")

    id, call = await next_call()
    await call.answer.post(
        AnswerPostRequestBody(
            callback_uri=callback, accepted_modalities=[Modality.Audio], media_config=media()
        )
    )
    await notifications.state(id, "established")
    shown = await call.get()
    assert shown.active_modalities == [Modality.Audio], shown.active_modalities
    assert shown.answered_by.identity.application.display_name == "sdk", shown.answered_by
    listed = (await calls.get()).value
    assert [known.id for known in listed] == [id], listed

    # Two prompts that repeat until they are canceled.
    played = await call.play_prompt.post(PlayPromptPostRequestBody(prompts=[prompt, prompt], loop=True))
    assert played.status == OperationStatus.Running, played
    canceled = await call.cancel_media_processing.post(CancelMediaProcessingPostRequestBody(client_context="c"))
    assert canceled.status == OperationStatus.Completed and canceled.client_context == "c", canceled
    end = await notifications.ended(played)
    assert end["completionReason"] == "mediaOperationCanceled", end
    again = await call.operations.by_comms_operation_id(played.id).get()
    assert again.completion_reason == PlayPromptCompletionReason.MediaOperationCanceled, again

    record = await call.record.post(
        RecordPostRequestBody(
            max_record_duration_in_seconds=300,
            initial_silence_timeout_in_seconds=300,
            max_silence_timeout_in_seconds=300,
            play_beep=False,
            stop_tones=["#"],
            stream_while_recording=False,
        )
    )
    say(press="#")
    await notifications.ended(record)
    again = await call.operations.by_comms_operation_id(record.id).get()
    assert again.completion_reason == RecordCompletionReason.StopToneDetected, again
    token = {"Authorization": f"Bearer {again.recording_access_token}"}
    assert (await place.web.delete(again.recording_location, headers=token)).status_code == 204
    assert (await place.web.get(again.recording_location, headers=token)).status_code == 404
    say(step="recorded and deleted")

    status = await call.update_recording_status.post(
        UpdateRecordingStatusPostRequestBody(status=RecordingStatus.Recording)
    )
    assert status.status == OperationStatus.Completed, status
    ours, theirs = (await call.participants.get()).value
    assert ours.recording_info.recording_status == RecordingStatus.Recording, ours
    other = call.participants.by_participant_id(theirs.id)
    await other.mute.post(MutePostRequestBody(client_context="m"))
    assert (await other.get()).is_muted
    hold = await other.start_hold_music.post(StartHoldMusicPostRequestBody(custom_prompt=prompt))
    await notifications.ended(hold)
    stop = await other.stop_hold_music.post(StopHoldMusicPostRequestBody())
    await notifications.ended(stop)
    keys = await call.send_dtmf_tones.post(SendDtmfTonesPostRequestBody(tones=[Tone.Tone4, Tone.Star]))
    await notifications.ended(keys)
    operations = (await call.operations.get()).value
    kinds = {type(operation).__name__ for operation in operations}
    assert {"PlayPromptOperation", "RecordOperation", "SendDtmfTonesOperation"} <= kinds, kinds
    try:
        await call.start_recording.post(StartRecordingPostRequestBody())
        raise AssertionError("Teams' own recording is not here")
    except ODataError as error:
        assert error.response_status_code == 501 and error.error.code == "8520", error
    await call.delete()
    await notifications.state(id, "terminated")
    say(step="held and sent keys")

    def placed(number, **more):
        return Call(
            odata_type="#microsoft.graph.call",
            callback_uri=callback,
            requested_modalities=[Modality.Audio],
            targets=[phone(number)],
            media_config=media(),
            **more,
        )

    unanswered = await calls.post(placed("2180", ringing_timeout_in_seconds=3))
    assert unanswered.state == CallState.Establishing and unanswered.ringing_timeout_in_seconds == 3, unanswered
    while (shown := await calls.by_call_id(unanswered.id).get()).state == CallState.Establishing:
        pass
    assert shown.state == CallState.Ringing, shown
    over = await notifications.state(unanswered.id, "terminated")
    assert over["resultInfo"]["subcode"] == 10057, over
    # As Graph's documents print it: of this type, with phone as an additional member.
    identity = shown.targets[0].identity
    assert type(identity) is IdentitySet and "phone" in identity.additional_data, identity
    say(step="unanswered")

    speaker = await calls.post(placed("300"))
    await notifications.state(speaker.id, "established")
    call = calls.by_call_id(speaker.id)
    record = await call.record.post(RecordPostRequestBody(max_record_duration_in_seconds=6, play_beep=True))
    await notifications.ended(record)
    again = await call.operations.by_comms_operation_id(record.id).get()
    assert again.completion_reason in (
        RecordCompletionReason.MaxRecordDurationReached,
        RecordCompletionReason.MaxSilenceTimeout,
    ), again
    await place.clip(again, "clip.wav")
    await call.delete()
    await notifications.state(speaker.id, "terminated")
    say(step="recorded whom it called")


if __name__ == "__main__":
    run(main)
