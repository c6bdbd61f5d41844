using Microsoft.Extensions.Logging;

namespace Ublkback.Service;

/// <summary>The lines that the daemon itself logs.</summary>
internal static partial class DaemonLog
{
    [LoggerMessage(Level = LogLevel.Information, Message = "serving the vbds of {Home} with {Workers} workers")]
    public static partial void Serving(ILogger logger, string home, int workers);

    [LoggerMessage(Level = LogLevel.Information, Message = "plugin {File}: {Names}")]
    public static partial void PluginLoaded(ILogger logger, string file, string names);

    [LoggerMessage(Level = LogLevel.Error, Message = "plugin {File} is refused: {Reason}")]
    public static partial void PluginRefused(ILogger logger, string file, string reason);

    [LoggerMessage(
        Level = LogLevel.Error, Message = "code of a plugin failed on a thread of its own: {Type}: {Message}")]
    public static partial void PluginFailed(ILogger logger, string type, string message);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Message}")]
    public static partial void LogRemoved(ILogger logger, string message);

    [LoggerMessage(Level = LogLevel.Information, Message = "ended; connected disks wait for the next daemon")]
    public static partial void Ended(ILogger logger);

    [LoggerMessage(Level = LogLevel.Error,
        Message = "xenstore: connection lost: {Cause}; connected disks go on, and the daemon connects again")]
    public static partial void StoreLost(ILogger logger, string cause);

    [LoggerMessage(Level = LogLevel.Error, Message = "xenstore: connection lost: {Cause}; connected disks go on, but "
        + "the kernel's device cannot be opened again: restart the daemon")]
    public static partial void StoreLostForGood(ILogger logger, string cause);

    [LoggerMessage(Level = LogLevel.Information, Message = "xenstore: connected again, reading everything anew")]
    public static partial void StoreReconnected(ILogger logger);
}
