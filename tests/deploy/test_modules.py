"""What a configuration needs of the operating system is installed from there, and nothing else."""

import pytest

pytestmark = pytest.mark.system

# Two packages of a repository on the machine itself; the first would like to have the second.
_REPOSITORY = """
set -e
make() {
    folder=/srv/build/$1
    mkdir -p $folder/DEBIAN $folder/usr/lib/python3/dist-packages /srv/repo
    echo "value = 1" > $folder/usr/lib/python3/dist-packages/$2.py
    printf 'Package: %s\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: test\\n' $1 \
        > $folder/DEBIAN/control
    [ -z "$3" ] || echo "Recommends: $3" >> $folder/DEBIAN/control
    echo "Description: test" >> $folder/DEBIAN/control
    dpkg-deb --build $folder /srv/repo/$1.deb >/dev/null
    dpkg-deb -f /srv/repo/$1.deb
    echo "Filename: ./$1.deb"
    echo "Size: $(stat -c %s /srv/repo/$1.deb)"
    echo "SHA256: $(sha256sum /srv/repo/$1.deb | cut -d' ' -f1)"
    echo
}
mkdir -p /srv/repo
{ make python3-picamera2 picamera2 python3-wished-for
  make python3-wished-for wished_for ""; } > /srv/Packages
mv /srv/Packages /srv/repo/Packages
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/repo ./' > /etc/apt/sources.list
"""


def test_a_pi_camera_brings_its_module_and_not_what_that_recommends(site):
    """Asked for by its import, installed without recommendations, found beside the libraries."""
    site.machine.run("sh", "-c", _REPOSITORY)
    text = site.config.read_text()
    begin = text.index("[camera]")
    site.config.write_text(text[:begin] + '[camera]\nsource = "picamera2"\n')
    with site.begin("deploy", f"CONFIG={site.config}") as sender:
        said = sender.stdout.read()
    assert "installing python3-picamera2 from the operating system" in said
    installed = site.machine.run("dpkg-query", "-W", "-f", "${Package}\n").stdout.split()
    assert "python3-picamera2" in installed
    assert "python3-wished-for" not in installed
    # It was imported beside numpy and the rest; what is missing is the camera itself.
    assert "on trial now" in said
    assert "picamera2" in said.split("on trial now", 1)[1]


def test_a_module_that_cannot_be_had_is_named(site):
    """The configuration cannot do without, and nothing is switched to."""
    site.machine.run("sh", "-c", "dpkg --purge python3-picamera2 && rm /srv/repo/*.deb")
    site.checkout.commit("another")
    before = site.link("current")
    status, said = site.make("deploy", check=False)
    assert status != 0
    assert "python3-picamera2: the configuration needs it, and it cannot be had" in said
    assert site.link("current") == before
