#!/usr/bin/env bash
# mujoco==3.12.0 to 4.0.0 (numpy 2.4.6); 3.11.0 does otherwise
#
# A joint's type as the model holds it (numpy.int32) equals the enum's member from one side only:
# `jnt_type[0] == mjtJoint.mjJNT_HINGE` is true, and `mjtJoint.mjJNT_HINGE == jnt_type[0]` is false. `in` asks the
# member, so `jnt_type[0] in (mjtJoint.mjJNT_HINGE, ...)` is false for a hinge. gymnasium-robotics 1.4.2 (Fetch, Hand,
# Franka kitchen) asserts exactly that, and cannot make those environments with these versions of mujoco.
#
# Seen: mujoco 3.11.0: jnt_type == hinge True, hinge == jnt_type True, jnt_type in (hinge, slide) True
#       mujoco 3.17.0: jnt_type == hinge True, hinge == jnt_type False, jnt_type in (hinge, slide) False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 3.11.0 3.17.0; do
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "mujoco==$version" numpy==2.4.6
    "$work/venv/bin/python" - <<'EOF'
import mujoco

HINGE, SLIDE = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><body><joint type="hinge"/><geom size="1"/></body></worldbody></mujoco>'
)
kind = model.jnt_type[0]
found = kind == HINGE, HINGE == kind, kind in (HINGE, SLIDE)
print(f"mujoco {mujoco.__version__}: jnt_type == hinge {found[0]}, hinge == jnt_type {found[1]}, "
      f"jnt_type in (hinge, slide) {found[2]}")
expected = {"3.11.0": (True, True, True), "3.17.0": (True, False, False)}[mujoco.__version__]
assert found == expected, "the behaviour changed"
EOF
done
