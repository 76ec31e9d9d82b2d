"""The web page of the demo: Gradio components around a `DemoModel`."""

import functools
import importlib
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

from mmfusion_jax.commands.demo_model import DemoModel, Selection
from mmfusion_jax.errors import (
    DataError,
    MissingDependencyError,
    describe_exception,
    missing_dependency,
    shown,
)
from mmfusion_jax.inference.clip_inputs import FEATURE_SUFFIXES

GRADIO = "gradio"
MAJOR = "6"
"""Version of Gradio whose interface is used."""

INSTALL = 'pip install "mmfusion_jax[app]"'
MAX_FILE_SIZE = "500mb"
EMPTY = '<div class="demo demo-empty">The prediction is shown here.</div>'
CSS = Path(__file__).parent.parent / "report" / "templates" / "demo.css"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
"""Fonts of the system: those of Gradio would have to be loaded."""

SECONDARY = ("#5b6370", "#a3abb8")
"""Color of secondary text, light and dark."""


def import_gradio() -> Any:
    """Returns the module `gradio`.

    Raises:
        MissingDependencyError: It is not installed, or is another version.
    """
    try:
        version = importlib.metadata.version(GRADIO)
    except importlib.metadata.PackageNotFoundError as error:
        raise missing_dependency(GRADIO, "app", "the demo") from error
    if version.partition(".")[0] != MAJOR:
        raise MissingDependencyError(
            "E01",
            f"the demo requires gradio {MAJOR}, but {shown(version)} is installed.",
            INSTALL,
        )
    try:
        with warnings.catch_warnings():
            # Such as that of pydub without ffmpeg, which the demo does not use.
            warnings.simplefilter("ignore")
            return importlib.import_module(GRADIO)
    except ImportError as error:
        raise MissingDependencyError(
            "E01", f"gradio does not start: {describe_exception(error)}.", INSTALL
        ) from error


class DemoPage:
    """Handlers of the events of the page; each returns values of components.

    Args:
        model: The model.
        gradio: The module.
    """

    def __init__(self, model: DemoModel, gradio: Any):
        self.model, self._gradio = model, gradio

    def predict(
        self,
        tab: str,
        example: int | None,
        file: str | None,
        video: str | None,
        audio: str | None,
        text: str | None,
        used: list[str],
        coverage: float,
    ) -> tuple[str, Selection | None, Any]:
        """Predicts the input of the open tab.

        Args:
            tab: "examples", "file", "video" or "audio".
            example: Index of a test example.
            file: Path of an uploaded feature file.
            video: Path of an uploaded or recorded video.
            audio: Path of an uploaded or recorded sound.
            text: Transcript of the clip.
            used: Modalities that the model may use.
            coverage: Nominal coverage.

        Returns:
            HTML, the selection, and the choice among the examples of the file.
        """
        path = {"file": file, "video": video, "audio": audio}.get(tab) or ""
        rows = self._gradio.Dropdown(visible=False)
        if tab == "examples":
            selection = Selection(index=example or 0)
        elif path:
            selection = Selection(path, (text or "").strip())
        else:
            return self.model.guarded(_raise_no_input), None, rows
        html = self.model.show(selection, used, coverage)
        if path and len(ids := self._ids(selection)) > 1:
            choices = [(name, i) for i, name in enumerate(ids)]
            rows = self._gradio.Dropdown(choices=choices, value=0, visible=True)
        return html, selection, rows

    def _ids(self, selection: Selection) -> list[str]:
        """Returns the ids of the examples of a file; [] if it cannot be read."""
        try:
            return self.model.ids(selection)
        except Exception:  # `show` has made the message
            return []

    def again(
        self, selection: Selection | None, used: list[str], coverage: float
    ) -> Any:
        """Predicts the same input once more, after a setting was changed."""
        if selection is None:
            return self._gradio.skip()
        return self.model.show(selection, used, coverage)

    def row(
        self,
        selection: Selection | None,
        index: int,
        used: list[str],
        coverage: float,
    ) -> tuple[Any, Any]:
        """Predicts another example of the same file."""
        if selection is None or index is None:
            return self._gradio.skip(), self._gradio.skip()
        selection = Selection(selection.path, selection.text, int(index))
        return self.model.show(selection, used, coverage), selection


def _raise_no_input() -> str:
    raise DataError(
        "D26", "the inputs have no example.", "upload a file, or record a clip"
    )


def build_page(model: DemoModel, gradio: Any) -> Any:
    """Returns the page, a `gradio.Blocks`.

    Args:
        model: The model.
        gradio: The module.
    """
    gr, page = gradio, DemoPage(model, gradio)
    run = model.predictor.run
    kinds = [*(["examples"] if model.examples else []), "file"]
    if model.reads_clips:
        # A video also has the audio for a model that reads nothing else.
        heard = {"audio", "text"} & {*model.modalities}
        kinds = ["video", *(["audio"] if heard else [])]
    with gr.Blocks(title="mmfusion_jax demo", analytics_enabled=False) as blocks:
        gr.HTML(model.header())
        selection, tab = gr.State(None), gr.State(kinds[0])
        with gr.Row():
            with gr.Column(min_width=320):
                inputs = _inputs(gr, model, kinds, tab)
                used = gr.CheckboxGroup(
                    [*model.modalities],
                    value=[*model.modalities],
                    label="Modalities",
                    info="A modality that is turned off is masked.",
                )
                coverage = gr.Slider(
                    0.5,
                    0.99,
                    0.9,
                    step=0.01,
                    label="Coverage of the prediction set or interval",
                    visible=run.calibration is not None,
                )
                button = gr.Button("Predict", variant="primary", elem_id="predict")
            with gr.Column(min_width=320):
                rows = gr.Dropdown(label="Example of the file", visible=False)
                result = gr.HTML(EMPTY, elem_id="result")
        gr.HTML(model.footer())
        # One prediction at a time: the model uses all cores, or the accelerator.
        event = {
            "api_visibility": "private",
            "concurrency_id": "model",
            "show_progress": "minimal",
        }
        settings = [used, coverage]
        button.click(
            page.predict,
            [tab, *inputs, *settings],
            [result, selection, rows],
            **event,
        )
        used.input(page.again, [selection, *settings], result, **event)
        coverage.release(page.again, [selection, *settings], result, **event)
        rows.input(page.row, [selection, rows, *settings], [result, selection], **event)
    return blocks


def _inputs(gr: Any, model: DemoModel, kinds: list[str], tab: Any) -> list[Any]:
    """Returns the components of example, file, video, audio and transcript."""
    made: dict[str, Any] = {}
    with gr.Tabs():
        for kind in kinds:
            with gr.Tab(kind.capitalize()) as one:
                made[kind] = _component(gr, model, kind)
            one.select(functools.partial(str, kind), None, tab, queue=False)
    made["text"] = gr.Textbox(
        label="Transcript",
        info="What is spoken in the clip; the model reads it too.",
        visible=model.reads_text,
    )
    order = ("examples", "file", "video", "audio", "text")
    return [made[kind] if kind in made else gr.State(None) for kind in order]


def _component(gr: Any, model: DemoModel, kind: str) -> Any:
    """Returns the component of one kind of input."""
    if kind == "examples":
        choices = [(one.id, i) for i, one in enumerate(model.examples)]
        return gr.Dropdown(choices, value=0, label="Example of the test split")
    if kind == "video":
        return gr.Video(
            label="Video",
            sources=["upload", "webcam"],
            include_audio=True,
            height=300,
            webcam_options=gr.WebcamOptions(mirror=False),
            buttons=[],
        )
    if kind == "audio":
        return gr.Audio(label="Audio", type="filepath", buttons=[])
    # Without `file_types`: for a file of another type the reader has a better message.
    return gr.File(label=f"Feature file ({', '.join(FEATURE_SUFFIXES[:2])})")


def launch(blocks: Any, gradio: Any, port: int) -> str:
    """Serves the page on the loopback interface and returns its address.

    Args:
        blocks: The page.
        gradio: The module.
        port: A free port.

    Raises:
        OSError: Another program has taken the port.
    """
    # Gradio depends on Starlette. Pages of other hosts whose name leads to this machine
    # are refused.
    middleware = importlib.import_module("starlette.middleware")
    trusted = importlib.import_module("starlette.middleware.trustedhost")
    hosts = middleware.Middleware(
        trusted.TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]
    )
    blocks.queue(default_concurrency_limit=1, api_open=False)
    _, address, _ = blocks.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        inbrowser=False,
        inline=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        app_kwargs={"middleware": [hosts]},
        theme=_theme(gradio),
        css=CSS.read_text("utf-8"),
    )
    return address


def _theme(gradio: Any) -> Any:
    """Returns the theme: fonts of the system, and secondary text that can be read."""
    theme = gradio.themes.Default(
        primary_hue="blue",
        font=[*FONTS],
        font_mono=["ui-monospace", "monospace"],
    )
    light, dark = SECONDARY
    return theme.set(
        body_text_color_subdued=light,
        body_text_color_subdued_dark=dark,
        block_info_text_color=light,
        block_info_text_color_dark=dark,
    )
