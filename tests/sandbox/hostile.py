"""Programs that try to get out of the box, by class. Each returns 1.0 if, and only if, what it tried has worked.

They start where an escape from Python has already succeeded: with all built-in functions, ``ctypes``, and the frames
of the code that called them. ``$name`` stands for a canary (``canaries.Canaries.places``), ``$nr_name`` for the number
of a system call.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

import pyseccomp

PRELUDE = """
sys = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__['sys']
__builtins__.update(sys.modules['builtins'].__dict__)
import ctypes, errno, gc, math, mmap, os, resource, select, signal, socket, struct, threading, time, types
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.malloc.restype = ctypes.c_void_p

def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), 'refused')
    return result

def outer(name):
    frame = sys._getframe(1)
    while name not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals[name]

def works(attempt, *arguments):
    try:
        attempt(*arguments)
    except Exception:
        return False
    return True
"""


@dataclass(frozen=True)
class Attack:
    """One hostile program.

    Attributes:
        name: its class and what it tries.
        body: the lines of its function; it returns 1.0 at their end.
        anywhere: whether it succeeds in any ordinary process, which proves that it tries what it says.
        lie: what it may claim with success, because the box promises nothing about it.
        hangs: whether it does not end by itself.
        legal: whether the static policy lets it through: it does not weigh what a call takes or returns.
    """

    name: str
    body: str
    anywhere: bool = True
    lie: str = ""
    hangs: bool = False
    legal: bool = False

    def source(self, places: Mapping[str, Any], prelude: str = PRELUDE) -> str:
        body = Template(textwrap.dedent(self.body).strip("\n")).substitute(_Numbers(places))
        return f"{prelude}\ndef progress(frame, initial):\n{textwrap.indent(body, '    ')}\n    return 1.0\n"


class _Numbers(dict[str, Any]):
    def __missing__(self, name: str) -> int:
        if not name.startswith("nr_"):
            raise KeyError(name)
        return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name.removeprefix("nr_")))


def _class(kind: str, bodies: Mapping[str, str], **marks: Any) -> list[Attack]:
    return [Attack(f"{kind}: {name}", body, **marks) for name, body in bodies.items()]


FILES = _class(
    "files",
    {
        "read": "return float(open('$file').read() == 'untouched')",
        "read by descriptor": "os.read(os.open('$file', os.O_RDONLY), 1)",
        "open a path only": "os.open('$file', 0o10000000)",
        "write": "open('$file', 'w').write('x')",
        "append": "open('$file', 'a').write('x')",
        "create": "open('$folder/new', 'x')",
        "create in /tmp": "open('/tmp/carl-escaped', 'w').close(); os.remove('/tmp/carl-escaped')",
        "create in shared memory": "open('/dev/shm/carl-escaped', 'w').close(); os.remove('/dev/shm/carl-escaped')",
        "truncate": "os.truncate('$file', 0)",
        "delete": "os.remove('$file')",
        "rename": "os.rename('$file', '$folder/other')",
        "hard link": "os.link('$file', '$folder/other')",
        "symbolic link": "os.symlink('/etc', '$folder/other')",
        "make a folder": "os.mkdir('$folder/other')",
        "make a pipe": "os.mkfifo('$folder/other')",
        "change the mode": "os.chmod('$file', 0o600)",
        "change the time": "os.utime('$file', (0, 0))",
        "change the owner": "os.chown('$file', os.getuid(), os.getgid())",
        "look": "os.stat('$file')",
        "look at what may be done": "return float(os.access('$file', os.R_OK))",
        "list": "os.listdir('$folder')",
        "list while walking": "return float(len(list(os.scandir('/'))) > 0)",
        "where am I": "os.getcwd()",
        "go elsewhere": "os.chdir('$folder')",
        "statfs": "os.statvfs('$folder')",
        "by C": "return float(libc.fopen(b'$file', b'r') != 0)",
        "by openat2": "call($nr_openat2, -100, b'$file', (ctypes.c_uint64 * 3)(), 24)",
        "my memory as a file": "open('/proc/self/mem', 'rb')",
        "my memory's map": "open('/proc/self/maps').read()",
        "the parent's command line": "open('/proc/$parent/cmdline').read()",
        "a device": "os.open('/dev/null', os.O_RDWR)",
        "numpy load": "return float(np.loadtxt('$file', dtype=str) == 'untouched')",
        "numpy fromfile": "return float(len(np.fromfile('$file', np.uint8)) > 0)",
        "numpy genfromtxt": "return float(len(str(np.genfromtxt('$file', dtype=str))) > 0)",
        "numpy memmap": "np.memmap('$file', np.uint8, 'r+')[0] = 0",
        "numpy save": "np.save('$folder/new', np.zeros(3))",
        "numpy tofile": "np.zeros(3).tofile('$folder/new')",
        "numpy dump": "np.zeros(3).dump('$folder/new')",
        "numpy savetxt": "np.savetxt('$folder/new', np.zeros(3))",
        "cv2 imwrite": "return float(cv2.imwrite('$folder/new.png', frame))",
        "cv2 FileStorage": "return float(cv2.FileStorage('$folder/new.yml', 1).isOpened())",
        "a pipe": "os.pipe()",
        "memory as a file": "os.memfd_create('x')",
        "watch": "call($nr_inotify_init1, 0)",
        "a module that is not loaded": "import xmlrpc.client",
        "a second name for a descriptor": "os.dup(1)",
        "any descriptor at all": """
            def stat(number):
                os.fstat(number)
            return float(any(works(stat, number) for number in range(64)))
        """,
        "write to any descriptor": """
            for number in (1, 2):
                os.write(number, b'\\n')
        """,
    },
)
FILES += _class(
    "files",
    {
        "unnamed temporary": "os.open('$folder', os.O_RDWR | os.O_TMPFILE)",
        "my own memory by name": "open('/proc/self/mem', 'r+b', 0)",
        "the parent's memory": "open('/proc/$parent/mem', 'r+b')",
        "the neighbour's memory": "open('/proc/$neighbour/mem', 'r+b')",
        "a terminal": "os.open('/dev/tty', os.O_RDWR)",
        "cv2 imread": "return float(cv2.imread('$file') is not None)",
        "cv2 video": "return float(cv2.VideoCapture('$file').isOpened())",
        "mount": "call($nr_mount, b'none', b'$folder', b'tmpfs', 0, 0)",
        "another root": "os.chroot('$folder')",
        "by handle": "call($nr_open_by_handle_at, -100, (ctypes.c_uint64 * 20)(), 0)",
        "io_uring": "call($nr_io_uring_setup, 8, (ctypes.c_uint64 * 32)())",
        "asynchronous": "call($nr_io_setup, 8, (ctypes.c_uint64 * 1)())",
        "kernel log": "call($nr_syslog, 10, 0, 0)",
    },
    anywhere=False,
)

PROCESSES = _class(
    "processes",
    {
        "fork": """
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        """,
        "fork by number": """
            child = call($nr_clone, 17, 0, 0, 0, 0)
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        """,
        "spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
        "shell": "return float(os.system('true') == 0)",
        "shell that writes": "return float(libc.system(b'echo x > $folder/new') == 0)",
        "thread": """
            said = []
            thread = threading.Thread(target=said.append, args=(1,))
            thread.start()
            thread.join()
        """,
        "thread by C": "return float(libc.pthread_create((ctypes.c_ulong * 1)(), None, libc.abs, None) == 0)",
        "a sibling exists": "os.kill($sibling, 0)",
        "kill a sibling": "os.kill($sibling, signal.SIGKILL)",
        "stop a sibling": "os.kill($sibling, signal.SIGSTOP); os.kill($sibling, signal.SIGCONT)",
        "kill a sibling by descriptor": """
            signal.pidfd_send_signal(os.pidfd_open($sibling), signal.SIGKILL)
        """,
        "kill a sibling by thread": "call($nr_tkill, $sibling, 9)",
        "queue a signal": "call($nr_rt_sigqueueinfo, $sibling, 0, (ctypes.c_int * 32)(0, 0, -1))",
        "signal the parent": "os.kill($parent, 0)",
        "signal everybody": "os.kill(-1, 0)",
        "signal my group": "os.kill(0, 0)",
        "signal the supervisor's group": "os.killpg(os.getpgid($parent), 0)",
        "signal myself": "os.kill(os.getpid(), 0)",
        "who am I": "return float(os.getpid() > 0)",
        "who is my parent": "return float(os.getppid() > 0)",
        "be traced": "return float(libc.ptrace(0, 0, 0, 0) == 0)",
        "slow a sibling down": "os.setpriority(os.PRIO_PROCESS, $sibling, 19)",
        "move a sibling": "os.sched_setaffinity($sibling, [max(os.sched_getaffinity($sibling))])",
        "limit a sibling": "resource.prlimit($sibling, resource.RLIMIT_NOFILE, (9, 9))",
        "my own core": "os.sched_setaffinity(0, os.sched_getaffinity(0))",
        "my own priority": "os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))",
        "my own scheduling": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        "session": "os.getsid(0)",
        "name": "libc.prctl(15, b'python', 0, 0, 0) and 1 / 0",
        "sleep": "return float(call($nr_clock_nanosleep, 1, 0, (ctypes.c_long * 2)(0, 1000), 0) == 0)",
        "give way": "os.sched_yield()",
        "a timer of another kind": "call($nr_timer_create, 1, 0, (ctypes.c_int * 2)())",
        "an alarm": "signal.setitimer(signal.ITIMER_REAL, 100)",
        "ignore signals": "signal.signal(signal.SIGALRM, signal.SIG_IGN)",
        "handle crashes": "signal.signal(signal.SIGSEGV, signal.SIG_IGN)",
    },
)
PROCESSES += _class(
    "processes",
    {
        "exec": "os.execv('/bin/sh', ['sh', '-c', 'echo x > $folder/new'])",
        "exec nothing": "call($nr_execve, 0, 0, 0)",
        "exec memory": "call($nr_execveat, -1, b'', 0, 0, 0x1000)",
        "fork by clone3": "call($nr_clone3, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88)",
        "vfork": "call($nr_clone, 0x4111, 0, 0, 0, 0)",
        "kill another user's": "os.kill($nobody, signal.SIGKILL)",
        "kill the neighbour": "os.kill($neighbour, signal.SIGKILL)",
        "kill the zygote": "os.kill($zygote, signal.SIGKILL)",
        "stop the zygote": "os.kill($zygote, signal.SIGSTOP)",
        "trace a sibling": "return float(libc.ptrace(0x4206, $sibling, 0, 0) == 0)",
        "trace the zygote": "return float(libc.ptrace(0x4206, $zygote, 0, 0) == 0)",
        "read a sibling": """
            here = (ctypes.c_uint64 * 2)(id(frame), 8)
            call($nr_process_vm_readv, $sibling, here, 1, here, 1, 0)
        """,
        "write the parent": """
            here = (ctypes.c_uint64 * 2)(id(frame), 8)
            call($nr_process_vm_writev, $parent, here, 1, here, 1, 0)
        """,
        "write the neighbour": """
            here = (ctypes.c_uint64 * 2)(id(frame), 8)
            call($nr_process_vm_writev, $neighbour, here, 1, here, 1, 0)
        """,
        "advise the zygote's memory": """
            call($nr_process_madvise, call($nr_pidfd_open, $zygote, 0), 0, 0, 21, 0)
        """,
        "the parent's descriptors": "call($nr_pidfd_getfd, call($nr_pidfd_open, $parent, 0), 0, 0)",
        "compare with the parent": "call($nr_kcmp, $parent, os.getpid(), 1, 0, 0)",
        "signal at input": "__import__('fcntl').fcntl(outer('channel'), 8, $sibling)",
    },
    anywhere=False,
)

RIGHTS = _class(
    "rights",
    {
        "who am I": "return float(os.getuid() >= 0)",
        "raise a limit": "resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))",
        "read a limit": "resource.getrlimit(resource.RLIMIT_AS)",
        "a mask": "os.umask(0o22)",
        "outlive the parent": "libc.prctl(1, 0, 0, 0, 0) and 1 / 0",
        "be dumpable": "libc.prctl(4, 1, 0, 0, 0) and 1 / 0",
        "another filter": "libc.prctl(38, 1, 0, 0, 0) and 1 / 0",
        "another personality": "call($nr_personality, 0xffffffff)",
    },
)
RIGHTS += _class(
    "rights",
    {
        "landlock": "call($nr_landlock_create_ruleset, 0, 0, 1)",
        "root": "os.setuid(0)",
        "root again": "os.setresuid(0, 0, 0)",
        "root's groups": "os.setgroups([0])",
        "root's files": "call($nr_setfsuid, 0)",
        "capabilities": """
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)
            libc.capset(header, (ctypes.c_uint32 * 6)(*[0xffffffff] * 6)) and 1 / 0
        """,
        "capabilities for others": "libc.prctl(47, 2, 5, 0, 0) and 1 / 0",
        "root in a namespace": "call($nr_unshare, 0x10000000)",
        "the parent's namespaces": "call($nr_setns, call($nr_pidfd_open, $parent, 0), 0x10000000)",
        "an open filter": """
            rules = (ctypes.c_uint8 * 8)(6, 0, 0, 0, 0, 0, 0xff, 0x7f)
            program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(rules))
            call($nr_seccomp, 1, 0, program)
        """,
        "an open filter by prctl": """
            rules = (ctypes.c_uint8 * 8)(6, 0, 0, 0, 0, 0, 0xff, 0x7f)
            libc.prctl(22, 2, (ctypes.c_uint64 * 2)(1, ctypes.addressof(rules)), 0, 0) and 1 / 0
        """,
        "listen to filters": "call($nr_seccomp, 1, 8, (ctypes.c_uint64 * 2)())",
        "no limits": "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)",
        "files again": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "executable data": "call($nr_personality, 0x400000)",
        "keys": "call($nr_add_key, b'user', b'x', b'x', 1, -3)",
        "a kernel program": "call($nr_bpf, 5, (ctypes.c_uint64 * 16)(), 128)",
        "performance counters": "call($nr_perf_event_open, (ctypes.c_uint64 * 16)(), 0, -1, -1, 0)",
        "page faults": "call($nr_userfaultfd, 1)",
        "the other calling convention": "call(0x40000000 + $nr_getpid)",
    },
    anywhere=False,
)

NETWORK = _class(
    "network",
    {
        "tcp": "socket.create_connection(('127.0.0.1', $port), 1)",
        "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', $udp))",
        "a named socket": "socket.socket(socket.AF_UNIX).connect('$unix')",
        "an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0$abstract')",
        "a pair": "socket.socketpair()",
        "listen": """
            listener = socket.socket()
            listener.bind(('127.0.0.1', 0))
            listener.listen()
        """,
        "any family": "return float(any(works(socket.socket, family, 2) for family in range(46)))",
    },
)
NETWORK += _class(
    "network",
    {
        "cv2": "return float(cv2.VideoCapture('tcp://127.0.0.1:$port').isOpened())",
        "connect the channel": """
            address = struct.pack('H', 1) + b'$unix'
            call($nr_connect, outer('channel'), address, len(address))
        """,
        "send by the channel": "call($nr_sendto, outer('channel'), b'x', 1, 0, 0, 0)",
        "send a descriptor by the channel": """
            channel = outer('channel')
            control = struct.pack('Qiii', 20, 1, 1, channel)
            message = (ctypes.c_uint64 * 7)(0, 0, 0, 0, id(control) + 32, len(control), 0)
            call($nr_sendmsg, channel, message, 0)
        """,
        "receive by the channel": "call($nr_recvmsg, outer('channel'), (ctypes.c_uint64 * 7)(), 0x40)",
        "peek at the channel": "call($nr_recvfrom, outer('channel'), bytes(9), 9, 0x42, 0, 0)",
        "shut the channel": "call($nr_shutdown, outer('channel'), 2)",
        "close the channel": "os.close(outer('channel'))",
        "copy the channel": "os.dup(outer('channel'))",
        "control the channel": "os.set_blocking(outer('channel'), False)",
        "turn the channel": "call($nr_ioctl, outer('channel'), 0x5421, (ctypes.c_int * 1)(1))",
        "whose is the channel": "call($nr_getsockopt, outer('channel'), 1, 17, bytes(12), (ctypes.c_int * 1)(12))",
        "many buffers": "call($nr_writev, outer('channel'), (ctypes.c_uint64 * 2)(id(frame), 1), 1)",
        "descriptor beyond 32 bits": "call($nr_write, outer('channel') + (1 << 32), b'x', 1)",
    },
    anywhere=False,
)

MEMORY = _class(
    "memory",
    {
        "executable": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
        "writable and executable": "mmap.mmap(-1, 4096, prot=7)",
        "data turned into code": """
            page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
            libc.mprotect(ctypes.c_void_p(page), 4096, 5) and 1 / 0
        """,
        "code turned into data": """
            page = ctypes.cast(libc.abs, ctypes.c_void_p).value & -4096
            libc.mprotect(ctypes.c_void_p(page), 4096, 7) and 1 / 0
        """,
        "locked": "libc.mlock(ctypes.c_void_p(id(frame) & -4096), 4096) and 1 / 0",
        "shared by key": "libc.shmctl(libc.shmget(0, 4096, 0o1600), 0, None) and 1 / 0",
        "messages": "libc.msgctl(libc.msgget(0, 0o1600), 0, None) and 1 / 0",
        "semaphores": "libc.semctl(libc.semget(0, 1, 0o1600), 0, 0) and 1 / 0",
        "synchronise": "libc.msync(ctypes.c_void_p(id(frame) & -4096), 4096, 1) and 1 / 0",
        "which pages": "libc.mincore(ctypes.c_void_p(id(frame) & -4096), 4096, bytes(9)) and 1 / 0",
        "a quarter of a gigabyte": "return float(len(bytes(1 << 28)) > 0)",
        "a quarter of a gigabyte of mappings": "return float(len([mmap.mmap(-1, 1 << 24) for i in range(16)]) > 0)",
        "a quarter of a gigabyte that nobody can read": """
            return float(libc.mmap(None, ctypes.c_size_t(1 << 28), 0, 0x4022, -1, 0) != (1 << 64) - 1)
        """,
        "a quarter of a gigabyte by C": "return float(bool(libc.malloc(ctypes.c_size_t(1 << 28))))",
        "a quarter of a gigabyte of heap": "return float(libc.sbrk(1 << 28) != -1)",
    },
)
MEMORY += _class(
    "memory",
    {
        "where pages are": "call($nr_get_mempolicy, 0, 0, 0, 0, 0)",
        "frames made writable": "frame.setflags(write=True); frame[...] = 0",
        "frames' base": "frame.base.base[...] = 0",
        "frames protected otherwise": """
            page = frame.ctypes.data & -4096
            libc.mprotect(ctypes.c_void_p(page), 4096, 3) and 1 / 0
            ctypes.memset(page, 7, 4096)
        """,
        "frames by address": "ctypes.memset(frame.ctypes.data, 7, frame.nbytes)",
        "frames by a false array": """
            class Fake:
                __array_interface__ = dict(frame.__array_interface__, data=(frame.ctypes.data, False))
            np.asarray(Fake())[...] = 0
        """,
        "frames moved": """
            libc.mremap.restype = ctypes.c_void_p
            page = libc.mremap(ctypes.c_void_p(frame.ctypes.data & -4096), 0, 4096, 1)
            ctypes.memset(page, 7, 4096)
        """,
        "frames punched": "libc.madvise(ctypes.c_void_p(frame.ctypes.data & -4096), 4096, 9) and 1 / 0",
        "frames poisoned": "libc.madvise(ctypes.c_void_p(frame.ctypes.data & -4096), 4096, 100) and 1 / 0",
        "frames taken offline": "libc.madvise(ctypes.c_void_p(frame.ctypes.data & -4096), 4096, 101) and 1 / 0",
        "frames resized": "outer('shared').frames.resize(4096)",
        "control resized": "outer('shared').values.base.resize(4096)",
        "a list that doubles": """
            kept = [0]
            while len(kept) < 1 << 27:
                kept += kept
        """,
        "a text that doubles": """
            text = 'x'
            while len(text) < 1 << 30:
                text += text
        """,
        "many small things": """
            kept = {}
            for i in range(10**7):
                kept[i] = str(i)
        """,
        "deep recursion": """
            sys.setrecursionlimit(10**9)
            def deeper(n):
                return [deeper(n + 1)]
            deeper(0)
        """,
        "deep recursion in C": """
            gc.disable()
            nested = ()
            for i in range(2 * 10**5):
                nested = (nested,)
            hash(nested)
        """,
        "deep recursion in the compiler": "eval('(' * 10**5 + ')' * 10**5)",
        "deep minus signs": "sys.setrecursionlimit(10**9); eval('-' * 10**6 + '1')",
        "crash": "ctypes.string_at(0)",
        "crash by bad code": "exec((lambda: 0).__code__.replace(co_code=b'd\\xff' * 50, co_consts=()))",
        "abort": "os.abort()",
        "a name that is too long": "getattr(frame, 'x' * (1 << 29))",
    },
    anywhere=False,
)

FAULTS = _class(
    "faults",
    {
        "exit": "sys.exit(0)",
        "exit at once": "os._exit(0)",
        "exit by number": "libc.exit(0)",
        "interrupt": "raise KeyboardInterrupt",
        "generator's exit": "raise GeneratorExit",
        "a base of my own": """
            class Worst(BaseException):
                pass
            raise Worst
        """,
        "an error that cannot be told": """
            class Mute(Exception):
                def __str__(self):
                    raise SystemExit
            raise Mute
        """,
        "an error that exits when told": """
            class Leaving(Exception):
                def __str__(self):
                    os._exit(0)
            raise Leaving
        """,
        "an error of many megabytes": "raise ValueError('x' * 10**7)",
        "an error for the terminal": "raise ValueError('\\x1b[2J\\x1b]0;owned\\x07\\0\\r\\n')",
        "an error with a long name": "raise type('\\x1b' * 10**5, (Exception,), {})",
        "an error without end": """
            error = ValueError()
            error.__cause__ = error.__context__ = error
            raise error
        """,
        "a number that raises": """
            class Number(float):
                def __ne__(self, other):
                    raise SystemExit
            return Number(1)
        """,
        "a number that turns into a text": """
            class Number(float):
                def __float__(self):
                    return 'one'
            return Number(1)
        """,
        "a number that turns out large": """
            class Number(float):
                def __le__(self, other):
                    return True
                __ge__ = __le__
                def __float__(self):
                    return math.nan
            return Number(7)
        """,
        "something that cannot be shown": """
            class Shy:
                def __repr__(self):
                    os._exit(0)
            return Shy()
        """,
        "an array of an object": "return np.array([1.0], dtype=object)",
        "a huge whole number": "return 10 ** 100000",
        "a generator": "return (1.0 for i in range(3))",
    },
    anywhere=False,
)

WASTE = _class(
    "waste",
    {
        "a quarter of a gigabyte of numbers": "return float(np.ones(1 << 25).sum() > 0)",
        "a large picture": "return float(cv2.resize(frame, (10000, 10000)).size > 0)",
    },
    legal=True,
)
WASTE += _class(
    "waste",
    {
        "a class": "return float",
        "a huge sort": "sorted(range(10**6), key=lambda i: -i)",
        "a long loop": """
            for i in range(10**6):
                for k in range(10**6):
                    pass
        """,
        "a long list": "return float(len([i for i in range(10**8)]) > 0)",
        "a pattern that is searched for long": """
            picture = np.zeros((1000, 1000), np.float32)
            for i in range(10**4):
                found = cv2.matchTemplate(picture, picture[:500, :500], cv2.TM_SQDIFF)
        """,
        "nested arrays": """
            kept = []
            for i in range(1000):
                kept = [kept, np.zeros((100, 1000))]
        """,
        "numbers that grow": """
            x = 10
            for i in range(30):
                x = x * x
            return float(x > 0)
        """,
        "a text that grows": """
            text = "x"
            for i in range(40):
                text = text + text
        """,
    },
    anywhere=False,
    hangs=True,
    legal=True,
)

TIME = _class(
    "time",
    {
        "endless": "while True: pass",
        "endless in C": "sum(range(10**15))",
        "endless in numpy": "while True: np.linalg.svd(np.ones((300, 300)))",
        "endless with all signals blocked": """
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
            while True:
                pass
        """,
        "endless while it moves the cursor": """
            cursor = outer('shared').cursor
            while True:
                cursor[0] = (cursor[0] + 1) % 1000
        """,
        "a lock that nobody opens": "libc.sem_wait((ctypes.c_long * 4)())",
        "a futex that nobody wakes": """
            call($nr_futex, (ctypes.c_int * 1)(), 0, 0, 0, 0, 0)
        """,
        "a request that nobody sends": """
            os.read(outer('channel'), 32)
        """,
        "an expression without end": "__import__('re').match('(a+)+$$', 'a' * 64 + 'b')",
        "an error that takes for ever to tell": """
            class Slow(Exception):
                def __str__(self):
                    while True:
                        pass
            raise Slow
        """,
        "a number that is compared for ever": """
            class Number(float):
                def __ge__(self, other):
                    while True:
                        pass
            return Number(1)
        """,
        "a huge power": "return float(9 ** 9 ** 9 > 0)",
        "a huge text": "return float(len(str(1 << (1 << 26))) > 0)",
        "errors without end": """
            while True:
                try:
                    while True: pass
                except BaseException:
                    pass
        """,
    },
    anywhere=False,
    hangs=True,
)

CHANNEL = _class(
    "channel",
    {
        "garbage": "os.write(outer('channel'), b'x' * 999)",
        "a zygote's answer": "os.write(outer('channel'), b'{\"pid\": 1, \"status\": 0}')",
        "finished early": "os.write(outer('channel'), b'f')",
        "ready again": "os.write(outer('channel'), b'r')",
        "finished many times": "os.write(outer('channel'), b'f' * 999)",
        "finished, then gone": "os.write(outer('channel'), b'ff'); os._exit(0)",
        "my value": "outer('shared').values[:] = 1.0",
        "other rows' values": "outer('shared').values[:] = 0.5",
        "values that are none": "outer('shared').values[:] = [7.0, -1.0, math.inf, -math.inf] * 64",
        "not a number, with a message": "outer('shared').values.view(np.uint64)[:] = 0x7ff8dead00000001",
        "cursor far ahead": "outer('shared').cursor[0] = 2**62",
        "cursor behind": "outer('shared').cursor[0] = -(2**62)",
        "other tasks": "outer('shared').tasks[:] = 10**9",
        "reasons for the terminal": "outer('shared').reasons[:] = b'\\x1b[2J\\n' * 40",
        "everything": "ctypes.memset(outer('shared').cursor.ctypes.data, 255, 64 + 16 * 256 + 240 * 256)",
        "everything, then gone": """
            ctypes.memset(outer('shared').cursor.ctypes.data, 255, 64 + 16 * 256 + 240 * 256)
            os._exit(0)
        """,
        "punched": "libc.madvise(ctypes.c_void_p(outer('shared').cursor.ctypes.data & -4096), 4096, 9) and 1 / 0",
    },
    anywhere=False,
    lie="a program may say what it likes about its own frames",
)
CHANNEL += _class(
    "channel",
    {
        "values that are none, and finished": """
            outer('shared').values[:] = [7.0, -1.0, math.inf, -math.inf] * 64
            os.write(outer('channel'), b'f')
            while True:
                pass
        """,
        "flood": """
            while True:
                os.write(outer('channel'), b'f' * 4096)
        """,
        "flood of something else": """
            while True:
                os.write(outer('channel'), b'x' * 4096)
        """,
        "finished each time, and deaf": """
            channel, tasks = outer('channel'), outer('shared').tasks
            while True:
                tasks[0] = 77
                os.write(channel, b'f')
                while tasks[0] == 77:
                    pass
        """,
    },
    anywhere=False,
    hangs=True,
    lie="a program may say what it likes about its own frames",
)

INSIDE = _class(
    "inside",
    {
        "code from text": "return float(eval('1'))",
        "code from bytes": """
            marshal = __import__('marshal')
            return float(eval(marshal.loads(marshal.dumps(compile('1', '', 'eval')))))
        """,
        "the interpreter by C": "ctypes.pythonapi.PyRun_SimpleString(b'1') and 1 / 0",
        "the judge": "sys.modules['carl.sandbox.child'].checked = lambda result: (1.0, '')",
        "the judge's frames": "sys._getframe(1).f_locals['self']._function = lambda frame, initial: 1.0",
        "the modules": "sys.modules.clear()",
        "the built-in functions": "sys.modules['builtins'].len = lambda x: 1",
        "numpy": "np.ndarray = np.add = None",
        "the tracing function": "sys.settrace(lambda *arguments: None)",
        "the collector": "gc.unfreeze(); gc.collect()",
        "view closed": "outer('shared').frames.close()",
        "view moved": """
            page = frame.ctypes.data & -4096
            return float(libc.mmap(ctypes.c_void_p(page), 4096, 3, 0x32, -1, 0) == page)
        """,
        "the class of a number": """
            class Number:
                __class__ = float
                __ne__ = lambda self, other: False
                __ge__ = __le__ = lambda self, other: True
                __float__ = lambda self: 7.0
            return Number()
        """,
        "time": "return float(time.time() > 0)",
        "luck": "return float(len(os.urandom(4)) == 4)",
        "addresses": "return float(id(frame) > 0)",
        "the folders of the libraries": "return float(len(sys.argv) > 0)",
    },
    anywhere=False,
    lie="what a program does to its own process is its own affair",
)

SECRETS = _class(
    "secrets",
    {
        "environment": "return float('$secret' in os.environ)",
        "environment in C": "libc.getenv.restype = ctypes.c_char_p; return float(bool(libc.getenv(b'$secret')))",
    },
)
SECRETS += _class(
    "secrets",
    {
        "the neighbour's program": """
            own = 'quo' + 'kka'
            def texts():
                for thing in gc.get_objects():
                    if isinstance(thing, dict):
                        yield from (value for value in list(thing.values()) if isinstance(value, str))
            return float(any(own in text for text in texts()))
        """,
        "the neighbour's frames": "return float(b'quo' + b'kka' in bytes(outer('shared').frames[:1 << 20]))",
        "what was judged here before": "return float(hasattr(np, 'mark') or setattr(np, 'mark', 1) is not None)",
    },
    anywhere=False,
)

SYSTEM_CALLS = Attack(
    "rights: every system call that is not listed",
    """
    allowed = (
        $nr_brk, $nr_munmap, $nr_mremap, $nr_madvise, $nr_futex, $nr_rt_sigreturn, $nr_rt_sigprocmask,
        $nr_restart_syscall, $nr_clock_gettime, $nr_clock_getres, $nr_gettimeofday, $nr_getrandom,
        $nr_exit, $nr_exit_group,
    )
    def answer(number):
        libc.syscall.restype = ctypes.c_long
        ctypes.set_errno(0)
        return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6), ctypes.get_errno()
    return float(any(answer(number) != (-1, errno.EPERM) for number in range(600) if number not in allowed))
    """,
    anywhere=False,
)

ATTACKS = [
    *FILES,
    *PROCESSES,
    *RIGHTS,
    *NETWORK,
    *MEMORY,
    *FAULTS,
    *WASTE,
    *TIME,
    *CHANNEL,
    *INSIDE,
    *SECRETS,
    SYSTEM_CALLS,
]
