# A bundle behind HTTP, small and without root:
#
#   docker build --build-arg BUNDLE=runs/mine/frozen/bundle -t my-model .      (a bundle below runs/: .dockerignore leaves the rest out)
#   docker run --read-only --tmpfs /tmp -p 8000:8000 -e FROSTLINE_TOKEN=... my-model
#
# The bundle is compiled while the image is built; PyTorch, a gigabyte of it, stays behind. So the image classifies and finds resembling
# training photos; explanations, which need PyTorch, are answered with 501.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/frostline
ENV PATH=/opt/frostline/bin:$PATH
WORKDIR /src
# PyTorch without CUDA first: the exact versions of the lock, from the publisher's own index
COPY requirements.lock .
RUN grep -E '^(torch|torchvision)==' requirements.lock > torch.txt \
 && pip install --index-url https://download.pytorch.org/whl/cpu -r torch.txt \
 && grep -vE '^(torch|torchvision|triton|nvidia-|cuda-)' requirements.lock > rest.txt \
 && pip install -r rest.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps .
ARG BUNDLE
COPY ${BUNDLE} /bundle
ENV FROSTLINE_CACHE=/cache
# what is kept is read by either engine: the machine that runs the image may have other instructions than the one that builds it
RUN python -c "from frostline import load; load('/bundle', 'onnx')" \
 && find /cache -name '*.lock' -delete
# What serving never imports goes. PyTorch's dist-info stays: its version is part of the compiled files' names.
RUN cd /opt/frostline/lib/python3.11/site-packages \
 && rm -rf torch torchgen functorch torchvision torchvision.libs timm triton nvidia sympy networkx mpmath \
    scipy scipy.libs sklearn scikit_learn.libs onnx onnxscript onnx_ir ml_dtypes narwhals usearch \
    huggingface_hub hf_xet fsspec pip setuptools \
 && find . -name tests -type d -prune -exec rm -rf {} +

FROM python:3.11-slim
COPY --from=build /opt/frostline /opt/frostline
COPY --from=build /bundle /bundle
COPY --from=build /cache /cache
ENV PATH=/opt/frostline/bin:$PATH FROSTLINE_CACHE=/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
# reachable from outside the container, so it wants FROSTLINE_TOKEN; --no-token, said explicitly, does without
ENTRYPOINT ["frostline", "serve", "/bundle", "--host", "0.0.0.0"]
