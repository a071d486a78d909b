"""The methods of ``inference.GRPCInferenceService``."""

from collections.abc import Callable
from functools import partial

import grpc

from edge_agent.inference.answer_memory import SMALL_BYTES, StreamAnswers
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.errors import RefusedError
from edge_agent.inference.grpc_api.callers import Caller, Callers, traceparent_of
from edge_agent.inference.grpc_api.calls import Context, Method, answering, reading, refuse
from edge_agent.inference.grpc_api.descriptions import Descriptions
from edge_agent.inference.grpc_api.inference import Inference
from edge_agent.inference.grpc_api.repository import Repository
from edge_agent.inference.grpc_api.shared_regions import SharedRegions
from edge_agent.inference.grpc_api.stream import InferStream
from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from edge_agent.inference.shared_memory import Regions

NAME = "inference.GRPCInferenceService"


class Service:
    """Answers calls of applications: the active releases, nothing that changes what is served."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        plane: DataPlane,
        *,
        regions: Regions | None,
        callers: Callers,
        error_answers: ErrorAnswers,
        max_request_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        """Work on a data plane.

        Args:
            plane: holds the models.
            regions: of shared memory; None where it is not enabled.
            callers: what they may take.
            error_answers: takes note of the calls and requests that are refused.
            max_request_bytes: what a request may have.
            clock: the one that times the plane's calls.
        """
        self._plane = plane
        self._callers = callers
        self._error_answers = error_answers
        self._inference = Inference(
            plane,
            regions=regions,
            memory=callers.memory,
            error_answers=error_answers,
            clock=clock,
        )
        self._descriptions = Descriptions(
            plane, max_request_bytes=max_request_bytes, shared_memory=regions is not None
        )
        self._repository = Repository(plane)
        self._regions = SharedRegions(regions)
        self._clock = clock

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods as gRPC wants them, from bytes to bytes."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.stream_unary_rpc_method_handler(
                reading(
                    method,
                    patience_s=self._callers.message_s,
                    error_answers=self._error_answers,
                )
            )
            for name, method in self._unary().items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream_infer)
        return grpc.method_handlers_generic_handler(NAME, methods)

    def _unary(self) -> dict[str, Method]:
        descriptions, repository, regions = self._descriptions, self._repository, self._regions
        return {
            "ModelInfer": self._infer,
            "ServerLive": answering(wire.ServerLiveRequest, descriptions.live),
            "ServerReady": answering(wire.ServerReadyRequest, descriptions.ready),
            "ModelReady": answering(wire.ModelReadyRequest, descriptions.model_ready),
            "ServerMetadata": answering(wire.ServerMetadataRequest, descriptions.server),
            "ModelMetadata": answering(wire.ModelMetadataRequest, descriptions.model),
            "ModelConfig": answering(wire.ModelConfigRequest, descriptions.configuration),
            "ModelStatistics": answering(wire.ModelStatisticsRequest, descriptions.statistics),
            "RepositoryIndex": answering(wire.RepositoryIndexRequest, repository.index),
            "RepositoryModelLoad": answering(wire.RepositoryModelLoadRequest, repository.load),
            "RepositoryModelUnload": answering(
                wire.RepositoryModelUnloadRequest, repository.unload
            ),
            "SystemSharedMemoryStatus": answering(
                wire.SystemSharedMemoryStatusRequest, regions.status
            ),
            "SystemSharedMemoryRegister": answering(
                wire.SystemSharedMemoryRegisterRequest, regions.register
            ),
            "SystemSharedMemoryUnregister": answering(
                wire.SystemSharedMemoryUnregisterRequest, regions.unregister
            ),
            "CudaSharedMemoryStatus": answering(
                wire.CudaSharedMemoryStatusRequest, regions.cuda_status
            ),
            "CudaSharedMemoryRegister": answering(
                wire.CudaSharedMemoryRegisterRequest, regions.cuda_register
            ),
            "CudaSharedMemoryUnregister": answering(
                wire.CudaSharedMemoryUnregisterRequest, regions.cuda_unregister
            ),
        }

    def end_streams(self) -> None:
        """End the streams as soon as what is in work on them is answered; begin none."""
        self._callers.streams.end_all("the runtime is stopping")

    async def _infer(self, payload: bytes, context: Context) -> bytes:
        self._callers.rates.admit(context)
        caller = Caller(context.time_remaining(), self._traceparent(context))
        answer = self._inference.answer(payload, caller)
        if not isinstance(answer, bytes):
            answer = await answer
        if len(answer) > SMALL_BYTES:
            self._hold(len(answer), context)
        return answer

    def _hold(self, size_bytes: int, context: Context) -> None:
        """Count an answer until gRPC has passed it on, or the caller has gone."""
        answers = self._callers.answers
        answers.hold(size_bytes)
        context.add_done_callback(lambda _: answers.let_go(size_bytes))  # type: ignore[arg-type] # the stubs know classes only

    async def _stream_infer(self, _: object, context: Context) -> None:
        # The call's deadline is that of the stream and says nothing of one request.
        caller = Caller(traceparent=self._traceparent(context))
        admit = partial(self._callers.rates.admit, context)
        answers = StreamAnswers(self._callers.answers)
        answer = partial(
            self._inference.answer_in_stream, caller=caller, admit=admit, answers=answers
        )
        stream = InferStream(context, answer, answers=answers, clock=self._clock)
        try:
            self._callers.streams.take(stream)
        except RefusedError as error:
            self._error_answers.note(error)
            await refuse(context, error)
        try:
            await stream.run()
        finally:
            self._callers.streams.leave(stream)

    def _traceparent(self, context: Context) -> str:
        return traceparent_of(context) if self._plane.traces is not None else ""
