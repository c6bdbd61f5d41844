using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Linux.Workers;

/// <summary>
/// One thread with one io_uring and one run loop. Everything on the data path of a ring happens on the ring's worker,
/// so it needs no locks; and nothing on a worker may block, since others wait for their turn.
/// </summary>
/// <remarks>
/// The loop has one system call: it submits what was prepared, then waits for completions unless work is scheduled.
/// Then each completion is handed to its operation, which may schedule work; then everything scheduled has one turn,
/// but of heavy work only one has: so light work waits for one heavy turn at most, however many there are.
/// Work that expects more to do very soon has the worker look for it first, instead of waiting at once; work that has
/// something to do later has a turn then.
/// Members are for the worker's own thread unless they say otherwise.
/// </remarks>
[DataPath]
public sealed unsafe partial class Worker : BlockLoop, IDisposable
{
    /// <summary>Bytes of guest data that one worker holds at most.</summary>
    public const long BufferBytes = 64 << 20;

    /// <summary>Bytes of descriptions of requests, a page each, that one worker holds at most.</summary>
    public const long DescriptionBytes = 4 << 20;

    private const int NonBlocking = 0x800; // EFD_NONBLOCK
    private const int CloseOnExec = 0x80000; // EFD_CLOEXEC

    private readonly Thread _thread;
    private readonly int _nice;
    private readonly Action<Exception>? _onFailed;
    private readonly ConcurrentQueue<Action> _posted = new();
    private readonly FileDescriptor _wakeUp;
    private readonly Stack<Delay> _freeDelays = new();
    private readonly List<(IPolledWork Work, long Until)> _polled = [];
    private readonly PriorityQueue<IWork, long> _timed = new();
    private Queue<IWork> _scheduled = new();
    private Queue<IWork> _turns = new();
    private readonly Queue<IWork> _heavy = new(); // scheduled too, and one turn of these in each round
    private UringOperations? _operations; // created on the thread, before the constructor returns
    private int _wakeUpSent; // 1: the event descriptor was written and its read has not completed yet
    private long _turnStartedAt; // 0 while it waits
    private bool _isStopping;

    /// <summary>Starts a worker.</summary>
    /// <param name="name">The name of its thread, of which Linux shows 15 characters.</param>
    /// <param name="onFailed">
    /// Takes what posted actions and watches throw, for a worker that runs code of others; otherwise that ends the
    /// process.
    /// </param>
    /// <param name="nice">The nice value of its thread, where this user may set it.</param>
    /// <exception cref="LinuxException">The kernel offers no io_uring.</exception>
    public Worker(string name, Action<Exception>? onFailed = null, int nice = 0)
    {
        Name = name;
        _nice = nice;
        _onFailed = onFailed;
        Buffers = new WorkerBuffers(Schedule, BufferBytes);
        Descriptions = new WorkerBuffers(Schedule, DescriptionBytes);
        _wakeUp = new FileDescriptor(LinuxException.Check(eventfd(0, NonBlocking | CloseOnExec), "eventfd"));
        TaskCompletionSource started = new();
        _thread = new Thread(() => Main(started)) { Name = name, IsBackground = true };
        _thread.Start();
        started.Task.GetAwaiter().GetResult(); // off the path: the start
    }

    /// <summary>The worker whose thread this is.</summary>
    /// <exception cref="InvalidOperationException">The calling thread is not a worker's.</exception>
    public static new Worker Current => (Worker)BlockLoop.Current;

    /// <summary>The name of its thread.</summary>
    public string Name { get; }

    /// <summary>How long its present turn has taken; zero while it waits for something to do. Any thread.</summary>
    public TimeSpan Busy =>
        Volatile.Read(ref _turnStartedAt) is long start and not 0 ? Stopwatch.GetElapsedTime(start) : TimeSpan.Zero;

    /// <summary>The memory for requests' data.</summary>
    public WorkerBuffers Buffers { get; }

    /// <summary>
    /// The memory for descriptions of requests. Apart from their data: a request that has the one waits for the other.
    /// </summary>
    public WorkerBuffers Descriptions { get; }

    /// <summary>The operations on its io_uring.</summary>
    public UringOperations Operations => _operations!;

    /// <inheritdoc/>
    public override void Post(Action action)
    {
        _posted.Enqueue(action);
        if (Interlocked.Exchange(ref _wakeUpSent, 1) != 0) return;
        ulong one = 1;
        _ = write(_wakeUp.Number, &one, sizeof(ulong));
    }

    /// <summary>Runs an action on the worker and tells when it is done. Any thread.</summary>
    public Task RunAsync(Action action) // off the path: control
    {
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Post(() =>
        {
            try
            {
                action();
                done.SetResult();
            }
            catch (Exception failure) when (failure is LinuxException or InvalidOperationException)
            {
                done.SetException(failure);
            }
        });
        return done.Task;
    }

    /// <summary>
    /// Gives work one turn after the completions at hand; heavy work waits for its turn among heavy work. Scheduling it
    /// twice is the same as once.
    /// </summary>
    public void Schedule(IWork work)
    {
        if (work.IsScheduled) return;
        work.IsScheduled = true;
        (work.IsHeavy ? _heavy : _scheduled).Enqueue(work);
    }

    /// <summary>
    /// Gives work a turn after a number of the stopwatch's ticks, for each call; a little later when much else is to
    /// do.
    /// </summary>
    public void ScheduleAfter(IWork work, long ticks) => _timed.Enqueue(work, Stopwatch.GetTimestamp() + ticks);

    /// <inheritdoc/>
    public override ValueTask DelayAsync(TimeSpan time)
    {
        Delay delay = _freeDelays.TryPop(out Delay? free) ? free : new Delay(_freeDelays);
        ScheduleAfter(delay, (long)(time.TotalSeconds * Stopwatch.Frequency));
        return delay.Task;
    }

    /// <inheritdoc/>
    public override IDisposable Watch(int descriptor, Action onReadable) => // off the path: the start of a descriptor
        new DescriptorWatch(Operations, descriptor, () => Run(onReadable));

    /// <summary>
    /// Looks for a number of the stopwatch's ticks whether work has something to do, then has it end that, once.
    /// </summary>
    public void Poll(IPolledWork work, long ticks) => _polled.Add((work, Stopwatch.GetTimestamp() + ticks));

    /// <summary>Ends the loop and waits for the thread. Any thread but the worker's own.</summary>
    public void Dispose()
    {
        Post(() => _isStopping = true);
        _thread.Join(); // off the path: the end
        _wakeUp.Dispose();
        Buffers.Dispose();
        Descriptions.Dispose();
    }

    private void Main(TaskCompletionSource started)
    {
        try
        {
            _operations = new UringOperations(); // off the path: the start
            if (_nice != 0) NiceValue.TrySet(_nice);
            MakeCurrent();
        }
        catch (LinuxException failure)
        {
            started.SetException(failure);
            return;
        }

        started.SetResult();
        using (_operations)
        {
            WakeUp wakeUp = new(this); // off the path: the start
            wakeUp.Start();
            while (!_isStopping) Turn();
        }
    }

    private bool HasScheduled => _scheduled.Count > 0 || _heavy.Count > 0;

    private void Turn()
    {
        if (_polled.Count > 0) Poll();
        Volatile.Write(ref _turnStartedAt, 0);
        Operations.Enter(HasScheduled || _polled.Count > 0 ? IoUring.NoWait : FindPatience());
        Volatile.Write(ref _turnStartedAt, Stopwatch.GetTimestamp());
        Operations.Complete();
        while (_posted.TryDequeue(out Action? action)) Run(action);
        ScheduleTimed();

        (_scheduled, _turns) = (_turns, _scheduled);
        while (_turns.TryDequeue(out IWork? work)) GiveTurn(work);
        if (_heavy.TryDequeue(out IWork? heavy)) GiveTurn(heavy);
    }

    private static void GiveTurn(IWork work)
    {
        work.IsScheduled = false;
        work.Run();
    }

    // Runs a posted action, or the action of a watch.
    private void Run(Action action)
    {
        try
        {
            action();
        }
        catch (Exception failure) when (_onFailed is not null)
        {
            _onFailed(failure);
        }
    }

    // Nanoseconds until timed work is due.
    private long FindPatience()
    {
        if (!_timed.TryPeek(out _, out long due)) return IoUring.Forever;
        long ticks = due - Stopwatch.GetTimestamp();
        return ticks <= 0 ? IoUring.NoWait : (long)(ticks * (1e9 / Stopwatch.Frequency));
    }

    private void ScheduleTimed()
    {
        if (_timed.Count == 0) return;
        long now = Stopwatch.GetTimestamp();
        while (_timed.TryPeek(out IWork? work, out long due) && due <= now)
        {
            _timed.Dequeue();
            Schedule(work);
        }
    }

    // Ends when there is anything to do, or nothing more to look for.
    private void Poll()
    {
        do
        {
            long now = Stopwatch.GetTimestamp();
            for (int i = _polled.Count - 1; i >= 0; i--)
            {
                (IPolledWork work, long until) = _polled[i];
                bool hasWork = work.HasWork;
                if (!hasWork && now < until) continue;
                _polled.RemoveAt(i);
                work.EndPolling(hasWork);
            }
        }
        while (_polled.Count > 0 && !HasScheduled && !Operations.HasWork);
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int eventfd(uint value, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint write(int descriptor, void* buffer, nuint length);

    /// <summary>Keeps one read of the event descriptor under way, so that a post ends the wait.</summary>
    private sealed class WakeUp(Worker worker) : RingOperation
    {
        private readonly Memory<byte> _counter = PinnedMemory.Allocate(sizeof(ulong));

        public void Start() => worker.Operations.StartRead(this, worker._wakeUp, _counter);

        // Actions queued before this are seen in this turn; later ones send a new wake-up.
        protected internal override void Completed(int result)
        {
            Interlocked.Exchange(ref worker._wakeUpSent, 0);
            Start();
        }
    }
}
