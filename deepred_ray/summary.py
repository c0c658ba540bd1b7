"""What `deepred run` ends with."""


def show(run, manifests):
    print(manifests)
