using System.Runtime.ExceptionServices;

namespace Ublkback.Plugins;

/// <summary>Exceptions that code of plugins throws on threads where nobody waits for it.</summary>
public static class StrayFailures
{
    /// <summary>Has the process live on after such exceptions, and tells of each. Once in a process.</summary>
    public static void Survive(Action<Exception> tell) => ExceptionHandling.SetUnhandledExceptionHandler(failure =>
    {
        if (!PluginContext.IsBehind(failure)) return false;
        tell(failure);
        return true;
    });
}
