using System.Diagnostics;
using Ublkback.Block;

namespace Ublkback.Plugins;

/// <summary>
/// Stands before code of a plugin that serves requests. The plugin gets private copies of them, so whatever it does to
/// one, and whenever, it does to nobody else's memory; each is answered exactly once, on the loop, and in time.
/// </summary>
internal sealed class GuardedImage : IBlockImage, IWorkerNeeds, IImageHealth, IResizableImage, IDiskObserver
{
    private readonly string _name;
    private readonly IBlockImage _plugin;
    private readonly TimeSpan _timeout;
    private readonly Func<bool> _isExcused;
    private readonly Action<string> _warn;
    private readonly RequestPool _requests = new();
    private readonly Stack<GuardedCall> _free = new();
    private readonly LinkedList<GuardedCall> _calls = new(); // the oldest first
    private BlockLoop? _loop;
    private bool _isSweeping;
    private volatile ImageGeometry _geometry;

    /// <summary>Stands before a plugin.</summary>
    /// <param name="name">What the log calls the plugin.</param>
    /// <param name="plugin">What serves requests.</param>
    /// <param name="timeout">How long it may take for one.</param>
    /// <param name="isExcused">Whether it cannot help being late now. On the loop.</param>
    /// <param name="warn">Takes a sentence for the log.</param>
    /// <exception cref="TargetException">What it says about itself cannot be.</exception>
    public GuardedImage(string name, IBlockImage plugin, TimeSpan timeout, Func<bool> isExcused, Action<string> warn)
    {
        _name = name;
        _plugin = plugin;
        _timeout = timeout;
        _isExcused = isExcused;
        _warn = warn;
        (ImageGeometry Geometry, string Identity) told = PluginCode.Run(name, () => (plugin.Geometry, plugin.Identity));
        _geometry = Check(told.Geometry);
        Identity = told.Identity ?? throw new TargetException($"{name} has no identity");
    }

    public ImageGeometry Geometry => _geometry;

    public string Identity { get; }

    public string NeedsOwnWorkerFor => _name;

    public bool HasLostWrites => Ask(() => _plugin.HasLostWrites, ifItFails: true);

    public string? Trouble => Ask(() => _plugin.Trouble, ifItFails: null);

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        _loop ??= BlockLoop.Current;
        GuardedCall call = _free.TryPop(out GuardedCall? free) ? free : new GuardedCall(this);
        return call.Start(request);
    }

    public void OnEvent(DiskEvent happened) => Ask(
        () =>
        {
            _plugin.OnEvent(happened);
            return true;
        },
        ifItFails: false);

    public async Task ResizeAsync(long byteCount)
    {
        try
        {
            await _plugin.ResizeAsync(byteCount).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is not TargetException)
        {
            throw new TargetException($"{_name} failed: {failure.GetType().Name}: {failure.Message}", failure);
        }
    }

    public bool Remeasure()
    {
        if (!Ask(_plugin.Remeasure, ifItFails: false)) return false;
        try
        {
            _geometry = Check(PluginCode.Run(_name, () => _plugin.Geometry));
            return true;
        }
        catch (TargetException failure)
        {
            _warn(failure.Message);
            return false;
        }
    }

    public ValueTask DisposeAsync() => PluginCode.EndAsync(_name, _plugin, _warn);

    /// <summary>A private copy of a request, with memory of its own.</summary>
    internal BlockRequest Copy(BlockRequest request)
    {
        BlockRequest copy = _requests.Rent(request);
        if (request.Operation == BlockOperation.Write) request.Data.CopyTo(copy.Data);
        return copy;
    }

    /// <summary>The plugin is done with a copy.</summary>
    internal void Return(BlockRequest copy) => _requests.Return(copy);

    internal void Return(GuardedCall call) => _free.Push(call);

    /// <summary>A call begins.</summary>
    internal ValueTask<BlockStatus> Pass(GuardedCall call, BlockRequest copy)
    {
        _calls.AddLast(call.Place);
        if (!_isSweeping) _ = SweepAsync();
        return _plugin.HandleAsync(copy);
    }

    /// <summary>A call has ended.</summary>
    internal void Remove(GuardedCall call) => _calls.Remove(call.Place);

    /// <summary>Whether the calling thread is the loop's; if it is not, the action will run there.</summary>
    internal bool IsOnLoop(Action otherwise)
    {
        if (_loop!.IsCurrent) return true;
        _loop.Post(otherwise);
        return false;
    }

    /// <summary>The plugin threw an exception instead of giving a status.</summary>
    internal BlockStatus Blame(Exception failure)
    {
        Blame($"failed: {failure.GetType().Name}: {failure.Message}");
        return BlockStatus.IoError;
    }

    internal void Blame(string what) => _warn($"{_name} {what}");

    // Calls end in any order, and all have the same time: only the oldest need be looked at.
    private async Task SweepAsync()
    {
        _isSweeping = true;
        while (_calls.First?.Value is GuardedCall oldest)
        {
            TimeSpan left = _timeout - Stopwatch.GetElapsedTime(oldest.StartedAt);
            if (left > TimeSpan.Zero)
            {
                await _loop!.DelayAsync(left);
            }
            else if (_isExcused())
            {
                _calls.Remove(oldest.Place);
                oldest.StartedAt = Stopwatch.GetTimestamp();
                _calls.AddLast(oldest.Place);
            }
            else
            {
                oldest.Abandon(_timeout);
            }
        }

        _isSweeping = false;
    }

    private T Ask<T>(Func<T> question, T ifItFails)
    {
        try
        {
            return question();
        }
        catch (Exception failure)
        {
            Blame(failure);
            return ifItFails;
        }
    }

    private ImageGeometry Check(ImageGeometry? geometry)
    {
        if (geometry is null) throw new TargetException($"{_name} has no geometry");
        if (geometry.SectorSize is not (512 or 4096) || geometry.SectorCount % ((ulong)geometry.SectorSize / 512) != 0)
            throw new TargetException($"{_name} has {geometry.SectorCount} sectors of 512 bytes in units of "
                + $"{geometry.SectorSize} bytes, which cannot be");
        return geometry;
    }
}
