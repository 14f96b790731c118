"""Every name that a program may use works inside the box, at its first use, and gives what it gives outside."""

import re

import cv2
import numpy as np
import pytest

from carl.program import MAX_SUBTASKS
from carl.sandbox.box import Box, Limits
from carl.sandbox.child import SubTaskCode, namespace
from carl.sandbox.names import BUILTINS, CV2, MATH, METHODS, NUMPY, vision_functions
from tests.sandbox.test_box import program

PROGRAM = """
import cv2
import math
import numpy as np
from carl import vision


def digest(x):
    if x is None or isinstance(x, bool):
        return float(bool(x))
    if isinstance(x, (list, tuple, set, frozenset)):
        parts = [digest(part) for part in x]
        return abs(math.sin(sum([part * (i + 1.5) for i, part in enumerate(parts)]) + len(parts)))
    if isinstance(x, dict):
        return digest([x[key] for key in sorted(x)])
    flat = np.nan_to_num(np.ravel(np.asarray(x, dtype=np.float64)), nan=0.1, posinf=0.2, neginf=0.3)
    return abs(math.sin(float((flat * np.linspace(1.0, 2.0, len(flat))).sum()) / (len(flat) + 1) + flat.shape[0]))


def progress(frame, initial):
    h, w = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    other = cv2.cvtColor(initial, cv2.COLOR_RGB2GRAY)
    real = grey.astype(np.float64)
    mask = grey > 90
    binary = mask.astype(np.uint8) * 255
    square = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 5.0]])
    numbers = np.array([3.0, 1.0, 2.0, 1.0])
    whole = np.array([3, 0, 2, 1])
    corners = np.array([[[1, 1]], [[1, 6]], [[4, 7]], [[6, 5]], [[6, 1]]], dtype=np.int32)
    return digest(RESULT)
"""

NUMPY_USES = """
bool(1) bool_(1) uint8(7) uint16(7) uint32(7) uint64(7) int8(-7) int16(-7) int32(-7) int64(-7) intp(7) float32(0.1)
float64(0.1) pi e inf nan newaxis array([1,2]) asarray([1.5,2]) ascontiguousarray(real.T) zeros((2,3))
zeros_like(grey) ones(3) ones_like(grey) full((2,2),7) full_like(real,0.5) arange(2,9,3) linspace(0,1,7) eye(3)
identity(4) meshgrid(numbers,whole) mgrid[0:3,0:4] ogrid[0:3,0:4] indices((3,4)) copy(grey) atleast_1d(3)
atleast_2d(numbers) atleast_3d(grey) broadcast_to(numbers,(3,4)) concatenate([numbers,numbers])
stack([grey,other],axis=2) vstack([grey,other]) hstack([grey,other]) dstack([grey,other])
column_stack([numbers,whole]) split(numbers,2) array_split(numbers,3) expand_dims(grey,2) squeeze(corners)
reshape(numbers,(2,2)) ravel(grey) transpose(frame,(2,0,1)) swapaxes(frame,0,2) moveaxis(frame,2,0) flip(grey)
fliplr(grey) flipud(grey) rot90(grey) roll(grey,3,axis=1) repeat(numbers,3) tile(numbers,(2,2))
pad(grey,2,mode='reflect') ndim(frame) shape(frame) size(frame) add(grey,other) subtract(real,other)
multiply(real,0.5) divide(real,other+1.0) true_divide(real,3) floor_divide(grey,7) mod(grey,7) remainder(real,0.7)
power(real,0.5) square(real) sqrt(real) cbrt(real) exp(real/99) log(real+1) log2(real+1) log10(real+1) log1p(real)
expm1(real/99) abs(real-9) absolute(real-9) fabs(real-9) sign(real-99) negative(real) reciprocal(real+1) floor(real/7)
ceil(real/7) rint(real/7) round(real/7,1) around(real/7,2) trunc(real/7) clip(grey,9,99) maximum(grey,other)
minimum(grey,other) fmax(real,9.5) fmin(real,9.5) hypot(real,real) sin(real) cos(real) tan(numbers) arcsin(real/255)
arccos(real/255) arctan(real) arctan2(real,numbers[0]) sinh(numbers) cosh(numbers) tanh(real) deg2rad(real)
rad2deg(real) degrees(real) radians(real) dot(square,square) matmul(real,real.T) inner(numbers,whole)
outer(numbers,whole) cross(square[0],square[1]) tensordot(square,square) einsum('ij,jk->ik',square,square)
trace(square) linalg.norm(real) linalg.det(square) linalg.inv(square) linalg.eigh(square)[0]
linalg.svd(real,compute_uv=False) linalg.lstsq(square,square[0])[0] linalg.solve(square,square[0])
nan_to_num(real/0,nan=3,posinf=9) interp(1.5,[1,2],[3,4]) gradient(real) diff(real,axis=0) ediff1d(numbers)
convolve(numbers,numbers) equal(grey,other) not_equal(grey,other) less(grey,other) less_equal(grey,other)
greater(grey,other) greater_equal(grey,other) logical_and(mask,grey) logical_or(mask,grey) logical_not(mask)
logical_xor(mask,grey) isclose(real,real) allclose(real,real) array_equal(grey,other) array_equiv(grey,other)
isnan(real/0) isinf(real/0) isfinite(real/0) isin(grey,[1,2,99]) all(mask) any(mask) bitwise_and(grey,other)
bitwise_or(grey,other) bitwise_xor(grey,other) bitwise_not(grey) invert(mask) left_shift(whole,2) right_shift(grey,3)
where(mask,grey,0) select([mask,real>9],[grey,other]) logical_and.reduce([mask,mask]) logical_or.reduce([mask,mask])
maximum.reduce([grey,other]) minimum.reduce([grey,other]) bitwise_or.reduce(grey) bitwise_and.reduce(grey)
add.reduce(real) sum(grey) mean(frame,axis=(0,1)) std(grey) var(real) median(grey) average(numbers,weights=whole)
percentile(grey,30) quantile(real,[0.1,0.9]) min(grey) max(grey) amin(grey,axis=0) amax(grey,axis=1) ptp(grey)
prod(numbers) cumsum(real) cumprod(numbers) nansum(real/0) nanmean(real) nanstd(real) nanmedian(real) nanmin(real)
nanmax(real) count_nonzero(mask) argmax(grey) argmin(grey) nanargmax(real) nanargmin(real) cov(square)
corrcoef(square) bincount(grey.ravel()) histogram(grey,bins=8) histogram2d(real.ravel(),real.ravel(),bins=4)
digitize(numbers,[1,2]) unique(grey) polyfit(whole,numbers,1) polyval(numbers,0.5) append(numbers,3)
insert(numbers,1,5) delete(numbers,1) setxor1d(whole,numbers) nonzero(mask)
flatnonzero(mask) argwhere(mask) sort(grey,axis=None)
argsort(numbers,kind='stable') lexsort((numbers,whole)) searchsorted([1,2,3],numbers) extract(mask,grey)
take(grey,[3,1]) take_along_axis(numbers,whole,0) choose(whole,[numbers]*4) compress([True,False],grey,axis=0)
unravel_index(7,(3,4)) ravel_multi_index((1,2),(3,4)) tril(square) triu(square) diag(square) diagonal(square)
union1d(numbers,whole) intersect1d(numbers,whole) setdiff1d(numbers,[1]) triu_indices(3) tril_indices(3)
"""

MATH_USES = """
pi e inf nan tau acos(0.3) acosh(1.3) asin(0.3) asinh(0.3) atan(0.3) atan2(0.3,2) atanh(0.3) cbrt(0.3) ceil(0.3)
copysign(2,-1) cos(0.3) cosh(0.3) degrees(0.3) dist((1,2),(3,5)) exp(0.3) expm1(0.3) fabs(-0.3) floor(0.3) fmod(7,3)
frexp(7.5) fsum([0.1,0.2]) hypot(3,4) isclose(1,1) isfinite(1) isinf(1) isnan(1) isqrt(99) ldexp(0.3,2) log(3)
log10(3) log1p(3) log2(3) modf(3.7) pow(3,2) radians(3) remainder(7,3) sin(3) sinh(3) sqrt(3) tan(3) tanh(3)
trunc(3.7)
"""

CV2_USES = """
absdiff(grey,other) add(grey,other) addWeighted(grey,0.5,other,0.5,1) approxPolyDP(corners,1.5,True)
arcLength(corners,True) bilateralFilter(frame,5,50,50) bitwise_and(grey,other) bitwise_not(grey)
bitwise_or(grey,other) bitwise_xor(grey,other) blur(frame,(3,3)) boundingRect(corners) boxFilter(grey,-1,(3,3))
boxPoints(((3.0,3.0),(2.0,4.0),30.0)) calcHist([frame],[0],None,[16],[0,256]) Canny(grey,50,150)
circle(grey.copy(),(3,3),2,255,-1) compare(grey,other,0)
compareHist(grey.astype(np.float32),other.astype(np.float32),0) connectedComponents(binary)
connectedComponentsWithStats(binary) contourArea(corners) convertScaleAbs(real) convexHull(corners)
copyMakeBorder(grey,1,1,1,1,4) countNonZero(grey) cvtColor(frame,cv2.COLOR_RGB2HSV)
dilate(binary,np.ones((3,3),np.uint8)) distanceTransform(binary,2,3) divide(real,real+1)
drawContours(grey.copy(),[corners],-1,255,-1) ellipse(grey.copy(),(3,3),(2,1),0,0,360,255,-1)
erode(binary,np.ones((3,3),np.uint8)) extractChannel(frame,1) fillConvexPoly(grey.copy(),corners,255)
fillPoly(grey.copy(),[corners],255) filter2D(real,-1,square)
findContours(binary,cv2.RETR_TREE,cv2.CHAIN_APPROX_NONE)[0] findNonZero(binary) fitEllipse(corners) flip(grey,1)
floodFill(grey.copy(),None,(0,0),255)[0] GaussianBlur(frame,(5,5),1.2) getStructuringElement(2,(5,5))
hconcat([grey,other]) HoughCircles(grey,3,1,5,param1=50,param2=5) HoughLines(binary,1,0.1,5)
HoughLinesP(binary,1,0.1,5) HuMoments(cv2.moments(corners)) inRange(frame,(9,9,9),(99,99,99)) integral(grey)
isContourConvex(corners) Laplacian(grey,6) line(grey.copy(),(0,0),(5,7),255,2)
LUT(grey,np.arange(256).astype(np.uint8)[::-1].copy()) magnitude(real,real) matchShapes(corners,corners+1,1,0.0)
matchTemplate(frame,initial[:3,:3],cv2.TM_CCOEFF_NORMED) max(grey,other) mean(frame) meanStdDev(frame)
medianBlur(frame,5) merge([grey,other]) min(grey,other) minAreaRect(corners) minEnclosingCircle(corners)
minMaxLoc(grey) moments(binary,True) morphologyEx(binary,2,np.ones((3,3),np.uint8)) multiply(real,real)
norm(grey,other) normalize(grey,None,0,255,32) pointPolygonTest(corners,(3.0,3.0),True) pyrDown(frame) pyrUp(frame)
rectangle(grey.copy(),(1,1),(4,4),255,1) reduce(real,0,1) resize(frame,(11,9),interpolation=4) rotate(frame,0)
Scharr(grey,6,1,0) Sobel(grey,6,1,1,ksize=5) split(frame) subtract(grey,other) threshold(grey,0,255,8)
transpose(frame) vconcat([grey,other])
"""

BUILTIN_USES = """
abs(-3) all([1,0]) any([1,0]) bool(3) dict(a=1) divmod(7,3) enumerate filter float('0.5') frozenset([1,2]) int('7')
isinstance(3,int) len([1]) list((1,2)) map max(1,2) min(1,2) next range reversed round(2.567,1) set([1,2]) slice
sorted([3,1]) sum([1,2]) tuple([1]) zip
"""

WRAPPED = {
    "newaxis": "real[np.newaxis]",
    "enumerate": "list(enumerate([5, 6]))",
    "filter": "list(filter(lambda x: x > 1, [1, 2, 3]))",
    "map": "list(map(lambda x: x * 2, [1, 2, 3]))",
    "next": "next(x for x in [3, 4] if x > 3)",
    "range": "list(range(2, 9, 3))",
    "reversed": "list(reversed([1, 2, 3]))",
    "slice": "grey[slice(1, 3)]",
    "zip": "list(zip([1, 2], [3, 4]))",
}
"""What has no digest of its own."""

METHOD_USES = """
grey.shape grey.size grey.ndim grey.T real.real real.imag grey.sum() grey.mean() grey.std() grey.var() grey.min()
grey.max() numbers.prod() mask.any() mask.all() grey.argmax() grey.argmin() numbers.argsort() mask.nonzero()
real.cumsum() numbers.cumprod() grey.clip(9,99) real.round(1) grey.astype(float) grey.copy() numbers.reshape(2,2)
grey.flatten() grey.ravel() corners.squeeze() frame.swapaxes(0,1) frame.transpose(2,0,1) numbers.repeat(2)
grey.take([1,2]) grey.tolist() numbers[0].item() square.dot(square) square.diagonal() square.trace() numbers.fill(3)
numbers.searchsorted(2) (grey.dtype==float) [].append(1) [1].extend([2]) [1].insert(0,2) [1].pop() [1].remove(1)
[1].reverse() [1].sort() [1,2].index(2) [1,1].count(1) [1].clear() list({1:2}.keys()) list({1:2}.values())
list({1:2}.items()) {1:2}.get(1) {1:2}.setdefault(1,3) {1:2}.update({3:4}) {1}.add(2) {1}.discard(1) {1}.union({2})
{1}.intersection({1}) {1}.difference({2}) {1}.issubset({1}) {1}.issuperset({1})
"""

VISION_USES = """
band(frame,60) blobs(mask) border_region(frame) brightness(frame) centre(mask) changed(frame,initial)
colour(frame,'red') distance(mask,~mask) filled(mask,2) grown(mask) largest(mask) outline(mask)
shaped(mask,taller=0.5) share(mask,mask) solid(mask,2) near(frame,(10,20,30),tolerance=60) saturated(frame)
background(frame) things(frame,min_area=2) moved(frame,initial) cells(mask,3,4) tilt(mask)
"""


def uses(text: str, prefix: str = "") -> dict[str, str]:
    """Name and expression for each word of one of the texts above."""
    named = {re.split(r"[(\[]", word)[0]: word for word in text.split()}
    return {name: WRAPPED.get(name, prefix + word) for name, word in named.items()}


def prefixed(text: str, prefix: str) -> dict[str, str]:
    return {prefix + name: expression for name, expression in uses(text, prefix).items()}


METHODS_USED = {re.findall(r"\.(\w+)", word)[-1]: word for word in METHOD_USES.split()}

USES = {
    **prefixed(NUMPY_USES, "np."),
    **prefixed(MATH_USES, "math."),
    **prefixed(CV2_USES, "cv2."),
    **prefixed(VISION_USES, "vision."),
    **uses(BUILTIN_USES),
    **{f".{name}": word for name, word in METHODS_USED.items()},
}

RANDOM = np.random.default_rng(0)
SMALL = RANDOM.integers(0, 256, (2, 12, 10, 3)).astype(np.uint8)
LARGE = SMALL.repeat(10, axis=1).repeat(10, axis=2)


NAMES = list(USES)
BATCHES = [NAMES[start : start + MAX_SUBTASKS] for start in range(0, len(NAMES), MAX_SUBTASKS)]


def source(name: str) -> str:
    return PROGRAM.replace("RESULT", USES[name])


def test_every_name_is_used():
    constants = {name for name in CV2 if not callable(getattr(cv2, name))}
    assert set(uses(NUMPY_USES)) == NUMPY
    assert set(uses(MATH_USES)) == MATH
    assert set(uses(CV2_USES)) == CV2 - constants
    assert set(uses(VISION_USES)) == vision_functions()
    assert set(uses(BUILTIN_USES)) == BUILTINS
    assert set(METHODS_USED) == METHODS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("names", BATCHES, ids=lambda names: names[0])
def test_they_give_in_the_box_what_they_give_outside(names):
    """What cannot be had there, because it is imported or set up at first use, could not be had at any later use."""
    sources = [source(name) for name in names]
    tasks = np.arange(len(names))
    with Box(program(*sources), Limits(deadline_s=10.0)) as box:
        for frame, initial in (SMALL, LARGE):
            judgement = box.judge(
                *(np.repeat(picture[None], len(names), axis=0) for picture in (frame, initial)), tasks
            )
            assert judgement.reasons == {}
            for name, text, value in zip(names, sources, judgement.values, strict=True):
                expected, why = SubTaskCode(1, text, namespace()).judge(frame, initial)
                assert value == pytest.approx(expected, abs=1e-9), (name, why)
