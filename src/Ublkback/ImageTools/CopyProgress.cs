using Spectre.Console;

namespace Ublkback.ImageTools;

/// <summary>Shows how far a copy is, with its rate and the time left, to people who look at it.</summary>
internal static class CopyProgress
{
    /// <summary>Runs a copy of a number of bytes; it tells of each that it has dealt with.</summary>
    public static Task<T> ShowAsync<T>(string what, long bytes, Func<Action<int>, Task<T>> copy) =>
        Console.IsOutputRedirected
        ? copy(_ => { })
        : AnsiConsole.Progress()
            .Columns(
                new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new TransferSpeedColumn(),
                new RemainingTimeColumn())
            .StartAsync(progress =>
            {
                ProgressTask task = progress.AddTask(Markup.Escape(what), maxValue: bytes);
                return copy(done => task.Increment(done));
            });
}
