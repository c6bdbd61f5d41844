using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Hooks.Faults;

/// <summary>
/// <c>watch(op=…,sectors=FIRST-LAST,pattern=HEX,action=log|run|hold,command=PATH)</c>: a watchpoint on data. When a
/// request touches the sectors, and its data has the pattern if one is given, that is logged; or a command is run, with
/// domid, device, operation, sector and count as arguments; or the request waits until <c>ublkback resume</c>.
/// </summary>
/// <remarks>
/// A write is looked at before it is passed on, a read when its data is there. A pattern across the border of two
/// requests is not found. One command runs at a time; what matches meanwhile is only logged.
/// </remarks>
internal sealed class WatchHook : BlockHook
{
    private readonly ImageOpening _opening;
    private readonly RequestFilter _filter;
    private readonly byte[] _pattern;
    private readonly bool _holds;
    private readonly string? _command;
    private readonly List<TaskCompletionSource> _held = [];
    private volatile int _heldCount; // for other threads
    private Task _running = Task.CompletedTask;
    private bool _isClosing;

    /// <summary>Makes the hook of one disk.</summary>
    /// <exception cref="TargetException">The arguments are not right.</exception>
    public WatchHook(HookTarget target, ImageOpening opening)
    {
        target.AllowOnly("op", "sectors", "pattern", "action", "command");
        _opening = opening;
        _filter = new RequestFilter(target);
        string action = target.GetChoice("action", "log", "run", "hold");
        _holds = action == "hold";
        _command = target.Get("command");
        if ((action == "run") != (_command is not null))
            throw new TargetException("action=run and command=PATH go together");
        if (_command is not null && !File.Exists(_command))
            throw new TargetException($"the command {_command} does not exist");
        try
        {
            _pattern = Convert.FromHexString(target.Get("pattern") ?? "");
        }
        catch (FormatException)
        {
            throw new TargetException($"pattern={target.Get("pattern")} is not made of bytes such as 4d5a");
        }
    }

    /// <inheritdoc/>
    public override string? Trouble => _heldCount == 0 ? null : $"held: {_heldCount} request(s) by a watchpoint";

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public override async ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
    {
        if (!_filter.Matches(request)) return await next.HandleAsync(request);
        if (request.Operation != BlockOperation.Read && HasPattern(request)) await FireAsync(request);
        BlockStatus status = await next.HandleAsync(request);
        if (request.Operation == BlockOperation.Read && status == BlockStatus.Okay && HasPattern(request))
            await FireAsync(request);
        return status;
    }

    /// <inheritdoc/>
    public override void OnEvent(DiskEvent happened)
    {
        _isClosing = happened is DiskEvent.Closing;
        if (happened is not (DiskEvent.Resumed or DiskEvent.Closing)) return;
        TaskCompletionSource[] held = [.. _held];
        _held.Clear();
        _heldCount = 0;
        foreach (TaskCompletionSource one in held) one.SetResult();
    }

    private bool HasPattern(BlockRequest request) => _pattern.Length == 0 || request.Data.Span.IndexOf(_pattern) >= 0;

    private Task FireAsync(BlockRequest request)
    {
        string what = $"watchpoint: {request.Operation} of {request.SectorCount} sectors at {request.Sector}";
        if (_holds && !_isClosing)
        {
            _opening.Warn($"{what} is held: 'ublkback resume' lets it go on");
            TaskCompletionSource held = new();
            _held.Add(held);
            _heldCount = _held.Count;
            return held.Task;
        }

        _opening.Warn(what);
        if (_command is not null && _running.IsCompleted) _running = RunAsync(_command, request);
        return Task.CompletedTask;
    }

    private Task RunAsync(string command, BlockRequest request)
    {
        string[] arguments =
        [
            _opening.Domid?.ToString(CultureInfo.InvariantCulture) ?? "", _opening.Device, request.Operation.ToString(),
            request.Sector.ToString(CultureInfo.InvariantCulture),
            request.SectorCount.ToString(CultureInfo.InvariantCulture),
        ];
        return Task.Run(async () =>
        {
            try
            {
                using Process process = Process.Start(command, arguments);
                await process.WaitForExitAsync().ConfigureAwait(false);
            }
            catch (Win32Exception failure)
            {
                _opening.Warn($"the watchpoint's command {command} cannot be run: {failure.Message}");
            }
        });
    }
}
