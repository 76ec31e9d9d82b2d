"""Audio features beside MFCC: log-mel, differences over time, removal of silence."""

import numpy as np

from mmfusion_jax.data.media.decode import HOP, N_FFT, import_librosa

_WIDTH = 9  # frames, the default of librosa.feature.delta


def log_mel(
    waveform: np.ndarray, sample_rate: int, bands: int = 40, *, pad_mode: str
) -> np.ndarray:
    """Power of mel bands in dB.

    Args:
        waveform: (n) float, n >= `N_FFT`.
        sample_rate: Sample rate in Hz.
        bands: Number of Slaney mel bands from 0 to sample_rate / 2.
        pad_mode: Padding of the ends, "reflect" or "constant".

    Returns:
        (1 + n // HOP, bands) float32, at least -100.

    Reference:
        OF-CMAER-CAT, Sec. 4; `librosa.feature.melspectrogram`.
    Deviation:
        The paper gives no sizes: 40 bands and the windows of the MFCC are ours.
    """
    librosa = import_librosa()
    power = librosa.feature.melspectrogram(
        y=np.asarray(waveform, np.float32),
        sr=sample_rate,
        n_fft=N_FFT,
        hop_length=HOP,
        n_mels=bands,
        pad_mode=pad_mode,
    )
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    return np.ascontiguousarray(decibels.T, np.float32)


def with_deltas(features: np.ndarray) -> np.ndarray:
    """Appends the first and second difference over time, (t f) to (t 3f).

    Reference:
        OF-CMAER-CAT, Sec. 4.1: "delta and delta-delta features";
        `librosa.feature.delta`, over 9 frames, with the ends repeated.
    """
    delta = import_librosa().feature.delta
    orders = [
        delta(features, width=_WIDTH, order=order, axis=0, mode="nearest")
        for order in (1, 2)
    ]
    return np.concatenate([features, *orders], axis=1).astype(np.float32)


def remove_silence(waveform: np.ndarray, silence_db: float) -> np.ndarray:
    """Removes the parts of a waveform whose level is below a threshold.

    Args:
        waveform: (n) float.
        silence_db: Threshold in dB below the loudest window of 2048 samples.

    Returns:
        The other parts, (n') float32, padded with zeros to at least `N_FFT` samples.

    Reference:
        OF-CMAER-CAT, Sec. 4.1.
    Deviation:
        The paper gives no threshold.
    """
    split = import_librosa().effects.split
    # Digital silence does not have a loudest window; nothing is removed.
    if not np.any(waveform):
        return waveform
    parts = split(waveform, top_db=silence_db, frame_length=N_FFT, hop_length=HOP)
    kept = np.concatenate([waveform[start:end] for start, end in parts])
    missing = max(0, N_FFT - len(kept))
    return np.pad(kept, (0, missing)).astype(np.float32)
