using Ublkback.Block;

namespace Ublkback.Plugins;

/// <summary>Runs code of plugins where no request waits for it.</summary>
internal static class PluginCode
{
    private static readonly TimeSpan EndPatience = TimeSpan.FromSeconds(5);

    /// <summary>Runs code; what it throws becomes a refusal.</summary>
    /// <exception cref="TargetException">The code refuses, or failed.</exception>
    public static T Run<T>(string name, Func<T> code)
    {
        try
        {
            return code();
        }
        catch (Exception failure) when (failure is not TargetException)
        {
            throw new TargetException($"{name} failed: {failure.GetType().Name}: {failure.Message}", failure);
        }
    }

    /// <summary>Disposes an object; what cannot end is left behind.</summary>
    public static async ValueTask EndAsync(string name, IAsyncDisposable plugin, Action<string> warn)
    {
        try
        {
            await Task.Run(async () => await plugin.DisposeAsync().ConfigureAwait(false))
                .WaitAsync(EndPatience).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            warn($"{name} has not ended for {EndPatience.TotalSeconds} s, and is left behind");
        }
        catch (Exception failure)
        {
            warn($"{name} failed when it was to end: {failure.GetType().Name}: {failure.Message}");
        }
    }
}
