// Record from the microphone.

const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];

/** Return why this browser cannot record here; "" if it can. */
export function whyNot() {
  if (!window.isSecureContext) return "Browsers record only on localhost and over https.";
  return navigator.mediaDevices && window.MediaRecorder ? "" : "This browser cannot record.";
}

/** A recording in progress. */
export class Recording {
  /** Begin; `hear` is called often, with the seconds so far and the level from 0 to 1. */
  static async begin(hear) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    return new Recording(stream, hear);
  }

  #chunks = [];
  #began = performance.now();

  constructor(stream, hear) {
    this.device = stream.getAudioTracks()[0]?.label ?? "";
    this.stream = stream;
    this.recorder = new MediaRecorder(stream, {
      mimeType: TYPES.find((type) => MediaRecorder.isTypeSupported(type)),
    });
    this.recorder.ondataavailable = ({ data }) => this.#chunks.push(data);
    this.ended = new Promise((resolve) => (this.recorder.onstop = resolve));
    this.recorder.start(1000);
    this.#watch(hear);
  }

  #watch(hear) {
    this.context = new AudioContext();
    const analyser = new AnalyserNode(this.context, { fftSize: 1024 });
    this.context.createMediaStreamSource(this.stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const look = () => {
      if (this.recorder.state !== "recording") return;
      analyser.getFloatTimeDomainData(samples);
      const loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      hear((performance.now() - this.#began) / 1000, loudest);
      requestAnimationFrame(look);
    };
    look();
  }

  /** End, free the microphone, and return what was recorded. */
  async end() {
    if (this.recorder.state !== "inactive") this.recorder.stop();
    await this.ended;
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    return new Blob(this.#chunks, { type: this.recorder.mimeType });
  }
}
